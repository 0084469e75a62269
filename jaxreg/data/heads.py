"""Heads and brains with labels, each on its own grid: what the segmentation network learns from.

A folder holds `participants.tsv` and `sub-*/sub-*_dseg.nii.gz`, and beside them real images
(`_T1w`, `_T2w`). Labels are FreeSurfer's numbers; of the head around the brain they may have the
extra-cerebral classes from 500 on. Where they have none and there is a real T1w, the head is split
into classes of intensity.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from jaxreg.data.cohort import Cohort, first_command, read_cohort, subjects_of
from jaxreg.data.label_codes import CLUSTERS, FIRST_CLUSTER, FIRST_HEAD, encode
from jaxreg.errors import InputError
from jaxreg.geometry.connected import fill_holes
from jaxreg.geometry.grid import Volume
from jaxreg.io import images
from jaxreg.io.headers import opened
from jaxreg.io.images import Remark, unheard

DOMAINS = ("T1w", "T2w")
_DARK = 0.1
"""Below this share of a head's robust maximum an image shows air or bone."""
_CLOSED_VOXELS = 3


class Head(NamedTuple):
    """A subject's label codes, and real images on the same grid as bytes."""

    name: str
    codes: UInt8[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    images: dict[str, UInt8[np.ndarray, "x y z"]]


def find_cohorts(folders: Sequence[Path]) -> list[Cohort]:
    """The cohorts that lie in folders, or in the folders one level below.

    Raises:
        InputError: a folder is none and holds none.
    """
    found = []
    for folder in folders:
        places = [folder] if (folder / "participants.tsv").is_file() else []
        places = places or sorted(p.parent for p in folder.glob("*/participants.tsv"))
        if not places:
            raise InputError(
                f"{folder}: expected participants.tsv, or folders that have one, found none; "
                f"{first_command(folder)}"
            )
        found += [read_cohort(place) for place in places]
    return found


def labelled(cohort: Cohort, split: str) -> list[str]:
    """Participants of a split who have labels, sorted."""
    subjects = subjects_of(cohort.participants, split)
    return [p for p in subjects if cohort.file(p, "dseg").is_file()]


def read_heads(cohort: Cohort, split: str, *, remark: Remark = unheard) -> list[Head]:
    """All labelled subjects of a split, read by several threads; `remark` as for `read_head`."""

    def read(name: str) -> Head:
        return read_head(cohort, name, remark=remark)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read, labelled(cohort, split)))


def read_head(cohort: Cohort, name: str, *, remark: Remark = unheard) -> Head:
    """A subject's codes, and those of its images that lie on the same grid.

    `remark` gets a line on what is unusual in a file and is accepted.

    Raises:
        InputError: a file cannot be read, or there are no labels in it.
    """
    labels = images.read_labels(opened(cohort.file(name, "dseg"), remark), remark=remark)
    codes = encode(labels.array)
    if not codes.any():
        raise InputError(f"{cohort.file(name, 'dseg')}: expected labels, got only zeros.")
    real = {}
    for domain in DOMAINS:
        path = cohort.file(name, domain)
        if path.is_file():
            image = images.read_image(opened(path, remark))
            if on_one_grid(image, labels):
                real[domain] = as_bytes(image.array)
    if codes.max() < FIRST_HEAD and "T1w" in real:
        codes = with_clusters(codes, real["T1w"])
    return Head(name, codes, labels.affine, real)


def on_one_grid(image: Volume, labels: Volume) -> bool:
    """Whether two volumes have the same voxels."""
    same = image.array.shape == labels.array.shape
    return same and np.allclose(image.affine, labels.affine, atol=1e-2)


def as_bytes(image: Float[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    """An image from 0 to 255; 0 stays 0, and so do bytes."""
    high = float(image.max())
    if image.min() >= 0 and 200 <= high <= 255:
        return np.rint(image).astype(np.uint8)
    high = max(float(np.percentile(image, 99.9)), 1e-6)
    return np.rint(255 * np.clip(image / high, 0, 1)).astype(np.uint8)


def with_clusters(
    codes: UInt8[np.ndarray, "x y z"], image: UInt8[np.ndarray, "x y z"]
) -> UInt8[np.ndarray, "x y z"]:
    """Codes with the head around the brain split by intensity; the air around it stays 0."""
    around = head_of(image) & (codes == 0)
    if not around.any():
        return codes
    count = np.bincount(image[around], minlength=256).astype(np.float64)
    levels = np.arange(256)
    share = np.cumsum(count) / count.sum()
    centres = np.interp((np.arange(CLUSTERS) + 0.5) / CLUSTERS, share, levels)
    for _ in range(30):
        cluster = np.abs(levels[:, None] - centres).argmin(axis=1)
        weight = np.bincount(cluster, count, minlength=CLUSTERS)
        total = np.bincount(cluster, count * levels, minlength=CLUSTERS)
        centres = total[weight > 0] / weight[weight > 0]  # where few levels occur, fewer classes
    cluster = np.abs(levels[:, None] - np.sort(centres)).argmin(axis=1)
    return np.where(around, (FIRST_CLUSTER + cluster).astype(np.uint8)[image], codes)


def head_of(image: UInt8[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The head without the air around it: what is bright, closed, its holes filled."""
    smooth = ndimage.uniform_filter(image.astype(np.float32), 3)
    bright = smooth > _DARK * np.percentile(image, 99)
    n = _CLOSED_VOXELS
    padded = np.pad(bright, n, mode="edge")
    closed = ndimage.binary_closing(padded, iterations=n)[n:-n, n:-n, n:-n]
    return fill_holes(np.logical_or(closed, bright))
