"""What simulated cohorts share: random shapes, random acquisitions, and the cohort on disk.

Every random quantity comes from a NumPy generator given as an argument, and NumPy and SciPy compute
the rest: a seed fixes the bytes of a cohort, whatever device JAX has. Fields and displacements live
on a voxel grid of isotropic spacing and follow `jaxreg.spatial`; lengths are in millimetres where
the name says so. `write_cohort` is the only function here with an effect.
"""

import functools
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped
from scipy import ndimage

from jaxreg.data.prepare.tables import write_description
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Volume
from jaxreg.io import images
from jaxreg.io.atomic import require_writable
from jaxreg.io.tables import write_table

SUBJECTS: Mapping[str, int] = MappingProxyType({"train": 12, "val": 2, "test": 4})
"""Subjects per split of a simulated cohort, unless the caller says otherwise."""


class Subject(NamedTuple):
    """One simulated subject: an image in [0, 1] per domain, 0 outside the brain, and the labels."""

    images: dict[str, Float32[np.ndarray, "x y z"]]
    labels: Int[np.ndarray, "x y z"]


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], *, spacing_mm: float, scale_mm: float
) -> Float32[np.ndarray, "x y z"]:
    """A Gaussian random field of mean 0 and variance 1: white noise smoothed by σ = `scale_mm`.

    It is drawn on a grid of about σ/2 and refined linearly, so its cost does not grow with σ.
    """
    step_mm = max(spacing_mm, scale_mm / 2)
    noise = rng.standard_normal(_coarse_shape(shape, spacing_mm, step_mm), dtype=np.float32)
    field = ndimage.gaussian_filter(noise, scale_mm / step_mm, mode="wrap")
    field = (field - field.mean()) / max(float(field.std()), 1e-6)
    return _refine(field, shape, spacing_mm, step_mm)


def _coarse_shape(shape, spacing_mm, step_mm):
    """Sizes of the grid of voxels of `step_mm` that covers a grid of voxels of `spacing_mm`."""
    x, y, z = (math.ceil(n * spacing_mm / step_mm - 1e-6) for n in shape)
    return x, y, z


def _refine(field, shape, spacing_mm, step_mm):
    """A field on the grid of `_coarse_shape`, brought back to `shape` linearly."""
    if step_mm == spacing_mm:
        return field
    coarse = Volume(field, np.diag([step_mm, step_mm, step_mm, 1.0]))
    x, y, z = shape
    return resampling.resample(coarse, spacing_mm).array[:x, :y, :z]


def random_displacement(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    *,
    spacing_mm: float,
    rms_mm: float,
    scale_mm: float = 14.0,
    affine: bool = False,
) -> Float32[np.ndarray, "x y z 3"]:
    """Displacement (voxels) of a random diffeomorphism, by default without an affine part.

    It is exp(v) of a stationary velocity whose components are Gaussian fields of σ = `scale_mm`,
    less their affine fit (with `affine`, less their mean), scaled to a root-mean-square length of
    `rms_mm`.
    """
    step_mm = max(spacing_mm, scale_mm / 2.5)
    coarse = _coarse_shape(shape, spacing_mm, step_mm)
    fields = [smooth_field(rng, coarse, spacing_mm=step_mm, scale_mm=scale_mm) for _ in range(3)]
    velocity = np.stack(fields, axis=-1)
    velocity = velocity - velocity.mean((0, 1, 2)) if affine else _without_affine(velocity)
    velocity *= rms_mm / step_mm / max(float(np.sqrt(np.sum(velocity**2, -1).mean())), 1e-6)
    fine = np.moveaxis(exponentiate(velocity) * (step_mm / spacing_mm), -1, 0)
    return np.stack([_refine(u, shape, spacing_mm, step_mm) for u in fine], axis=-1)


def exponentiate(
    velocity: Float32[np.ndarray, "x y z 3"], *, squarings: int = 5
) -> Float32[np.ndarray, "x y z 3"]:
    """Displacement of exp(v), voxels: `jaxreg.spatial.exponentiate` in SciPy."""
    displacement = velocity / 2**squarings
    for _ in range(squarings):
        displacement = displacement + warp(displacement, displacement)
    return displacement


def warp(
    array: Shaped[np.ndarray, "x y z c"],
    displacement: Float32[np.ndarray, "x y z 3"],
    *,
    order: int = 1,
) -> Shaped[np.ndarray, "x y z c"]:
    """moved(x) = array(x + u(x)), edge-clamped: `jaxreg.spatial.warp` in SciPy."""
    points = np.moveaxis(displacement, -1, 0) + np.indices(displacement.shape[:3], np.float32)
    moved = [
        ndimage.map_coordinates(channel, points, order=order, mode="nearest")
        for channel in np.moveaxis(array, -1, 0)
    ]
    return np.stack(moved, axis=-1)


def _without_affine(velocity):
    """The velocity less its affine least-squares fit, weighted towards the middle of the grid."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in velocity.shape[:3]]
    at = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    basis = np.concatenate([np.ones_like(at[:, :1]), at], axis=1)
    weight = np.exp(-2 * np.sum(at**2, axis=1, keepdims=True))
    flat = velocity.reshape(-1, 3)
    affine = np.linalg.solve(basis.T @ (weight * basis), basis.T @ (weight * flat))
    return (flat - basis @ affine).reshape(velocity.shape).astype(np.float32)


def acquire(
    rng: np.random.Generator,
    image: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    spacing_mm: float,
    regional: float = 0.06,
    bias: float = 0.07,
    noise: float = 0.02,
) -> Float32[np.ndarray, "x y z"]:
    """`image` (0 … 1) as one scanner run shows it: in (0, 1] inside the mask, 0 outside.

    `regional` is the standard deviation of a contrast that varies from region to region (σ 12 mm),
    `bias` that of the logarithm of a gain (σ 45 mm), `noise` that of each channel of a complex
    signal whose magnitude is the image. Blur is up to half a voxel.
    """
    field = functools.partial(smooth_field, rng, image.shape, spacing_mm=spacing_mm)
    tissue = image * (1 + regional * field(scale_mm=12.0)) * np.exp(bias * field(scale_mm=45.0))
    tissue = ndimage.gaussian_filter(tissue, rng.uniform(0.2, 0.5))
    real, imaginary = noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
    magnitude = np.hypot(tissue + real, imaginary)
    return np.where(mask, np.clip(magnitude, 1 / 100, 1), 0).astype(np.float32)


def centred_affine(shape: tuple[int, ...], spacing_mm: float) -> Float[np.ndarray, "4 4"]:
    """RAS affine of a grid whose middle is the origin."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -spacing_mm * (np.asarray(shape) - 1) / 2
    return affine


def write_cohort(
    folder: Path | str,
    subject: Callable[[int], Subject],
    *,
    subjects: Mapping[str, int],
    labels: Mapping[int, str],
    affine: Float[np.ndarray, "4 4"],
    name: str,
) -> Path:
    """Write subject(0), subject(1), … as a cohort (all of train, then val, then test).

    The cohort is built beside `folder` and renamed at the end: an interrupted run leaves nothing.

    Raises:
        InputError: the folder exists and is not empty, or the splits are not usable.
    """
    folder = Path(folder)
    _check_writable(folder, subjects)
    folder.parent.mkdir(parents=True, exist_ok=True)
    splits = [split for split in SUBJECTS for _ in range(subjects.get(split, 0))]
    width = max(2, len(str(len(splits))))
    names = [f"sub-{n + 1:0{width}d}" for n in range(len(splits))]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        build = Path(temporary) / "cohort"
        build.mkdir()
        write_description(build, name)
        write_table(
            build / "participants.tsv", ("participant_id", "split"), zip(names, splits, strict=True)
        )
        write_table(build / "labels.tsv", ("index", "name"), sorted(labels.items()))
        for index, participant in enumerate(names):
            _write_subject(build / participant, subject(index), affine)
        os.rename(build, folder)
    return folder


def _check_writable(folder, subjects):
    require_writable(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: expected a new or empty folder, it exists and has content.")
    unknown = set(subjects) - set(SUBJECTS)
    if unknown or min(subjects.values(), default=0) < 0 or sum(subjects.values()) < 1:
        raise InputError(f"subjects: expected counts for {', '.join(SUBJECTS)}; got {subjects}.")


def _write_subject(folder, subject, affine):
    """Images as uint8 with a robust maximum of 200 (brain voxels at least 1), and the labels."""
    folder.mkdir()
    for domain, image in subject.images.items():
        brain = image > 0
        scale = 200 / np.percentile(image[brain], 99.5)
        stored = np.where(brain, np.clip(np.rint(image * scale), 1, 255), 0)
        path = folder / f"{folder.name}_{domain}.nii.gz"
        images.write(path, Volume(stored, affine), dtype=np.uint8)
    labels = images.smallest_labels(subject.labels)
    images.write(folder / f"{folder.name}_dseg.nii.gz", Volume(labels, affine))
