"""The demonstration cohort: simulated subjects made from the ICBM152 2009c template.

The T1w and T2w template heads and the CerebrA labels are those that `data.mni152` finds. A subject
is the template brain seen through a random diffeomorphism, the same for both images and the labels;
contrast, gain and noise are drawn for each image alone, so that one is not a function of the other.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from jaxreg.data.intensities import normalize
from jaxreg.data.mni152 import label_names, require_mni152
from jaxreg.data.synthetic import simulate
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Volume
from jaxreg.io import images

MIN_VOXELS = 100
"""A structure is scored if the template has this many voxels of it at the cohort's spacing."""

_MARGIN_MM = 8.0


class Template(NamedTuple):
    """The template brain on a grid `fine` times finer than the cohort's, images in [0, 1]."""

    images: dict[str, Float32[np.ndarray, "x y z"]]
    labels: Int32[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    names: dict[int, str]
    affine: np.ndarray
    spacing_mm: float
    fine: int


def write_template_cohort(
    folder: Path | str,
    *,
    spacing_mm: float = 4.0,
    subjects: Mapping[str, int] = simulate.SUBJECTS,
    seed: int = 0,
    deformation_mm: float = 9.0,
) -> Path:
    """Write a cohort of warped templates with T1w, T2w and labels; returns its folder.

    The grid covers the brain and a margin of 8 mm in multiples of 8 voxels. `deformation_mm` is the
    root-mean-square length of a subject's deviation from the template, large and smooth, its size
    and pose included, so that a short training can learn it. Labels are CerebrA's; those
    of at least `MIN_VOXELS` voxels in the template are scored.

    Raises:
        InputError: the template is not installed, the folder is not empty, or an argument is
            not usable.
    """
    template = load_template(spacing_mm=spacing_mm)
    to_cohort = np.diag([template.fine] * 3 + [1.0])
    to_cohort[:3, 3] = (template.fine - 1) / 2
    counts = np.bincount(
        resampling.block_mode(template.labels, template.fine).ravel(), minlength=256
    )
    return simulate.write_cohort(
        folder,
        functools.partial(_subject, template, seed=seed, deformation_mm=deformation_mm),
        subjects=subjects,
        labels={k: name for k, name in template.names.items() if counts[k] >= MIN_VOXELS},
        affine=template.affine @ to_cohort,
        name="ICBM152 2009c, simulated subjects",
    )


def load_template(*, spacing_mm: float) -> Template:
    """The template brain, cropped, at 2 mm or so (`spacing_mm` divided by a whole number).

    Raises:
        InputError: the template is not installed, or the spacing is not between 1 and 12 mm.
    """
    files = require_mni152()
    if not 1 <= spacing_mm <= 12:
        raise InputError(f"spacing_mm: expected 1 to 12, got {spacing_mm}.")
    fine = max(1, round(spacing_mm / 2))
    mask = images.read(files.mask)
    brain = mask.array > 0.5
    box = functools.partial(_crop, box=_bounding_box(brain, spacing_mm), affine=mask.affine)
    resample = functools.partial(resampling.resample, spacing_mm=spacing_mm / fine)
    channels = {}
    for domain, path in files.images.items():
        head = images.read_image(path)
        channels[domain] = resample(box(normalize(head.array, brain))).array
    labels = box(images.read_labels(files.labels).array)
    coarse = resample(labels, labels=True)
    return Template(
        channels,
        coarse.array,
        resample(box(brain.astype(np.float32))).array > 0.5,
        label_names(files.names),
        coarse.affine,
        spacing_mm / fine,
        fine,
    )


def _bounding_box(brain, spacing_mm):
    """First voxel and size (1 mm voxels) of a box around the brain: whole cohort voxels, 8 | n."""
    where = np.argwhere(brain)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    voxels = 8 * np.ceil((high - low + 2 * _MARGIN_MM) / spacing_mm / 8)
    size = np.floor(voxels * spacing_mm + 1e-6).astype(int)
    return np.round((low + high - size) / 2).astype(int), size


def _crop(array, *, box, affine) -> Volume:
    """The part of a volume inside a box, which may reach beyond it (zeros)."""
    first, size = box
    out = np.zeros(size, array.dtype)
    start, stop = np.maximum(first, 0), np.minimum(first + size, array.shape)
    source = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    target = tuple(slice(a, b) for a, b in zip(start - first, stop - first, strict=True))
    out[target] = array[source]
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ first
    return Volume(out, moved)


def _subject(template, index, *, seed, deformation_mm) -> simulate.Subject:
    """Subject `index`: the template warped on its fine grid, then averaged over voxels."""
    rng = np.random.default_rng([seed, index])
    u = simulate.random_displacement(
        rng,
        template.mask.shape,
        spacing_mm=template.spacing_mm,
        rms_mm=deformation_mm,
        scale_mm=50.0,
        affine=True,
    )
    mean = functools.partial(resampling.block_mean, factor=template.fine)
    channels = np.stack([template.mask, *template.images.values()], axis=-1).astype(np.float32)
    moved = simulate.warp(channels, u)
    labels = simulate.warp(template.labels[..., None], u, order=0)
    mask = mean(moved[..., 0]) > 0.5
    images = {
        domain: _acquire(rng, mean(moved[..., n]), mask, template.spacing_mm * template.fine)
        for n, domain in enumerate(template.images, start=1)
    }
    labels = np.where(mask, resampling.block_mode(labels[..., 0], template.fine), 0)
    return simulate.Subject(images, labels.astype(np.int32))


def _acquire(rng, image, mask, spacing_mm):
    """The image with an exponent of its own that varies in space, then as a scanner shows it."""
    field = simulate.smooth_field(rng, image.shape, spacing_mm=spacing_mm, scale_mm=15.0)
    exponent = np.exp(0.12 * rng.standard_normal() + 0.12 * field)
    contrast = 0.85 * np.clip(image, 0, 1) ** exponent
    return simulate.acquire(rng, contrast, mask, spacing_mm=spacing_mm)
