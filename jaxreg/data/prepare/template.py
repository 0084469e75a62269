"""The common space of a cohort: masks, the mean of subjects aligned to each other, one resampling.

Matrices are pull-backs in RAS millimetres: `to_image` takes a point of the common space to the
point of an image where its value is read. An aligner, which data get as an argument since they know
nobody above them, is `align(fixed, moving, *, mode, fixed_mask=None, moving_mask=None)` with mode
"rigid" or "affine"; it returns the pull-back from `fixed` to `moving`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import linalg

from jaxreg.data.foreground import coarse
from jaxreg.data.intensities import normalize
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.resampling import resample_masked

Aligner = Callable[..., Float[np.ndarray, "4 4"]]

MARGIN_MM = 8.0
"""Between the subjects' bounding box and the border of the grid, at least."""
MEAN_SUBJECTS = 20
"""The mean of a cohort is that of this many subjects of the train split."""


class Head(NamedTuple):
    """A subject as the aligner sees them: coarse, in [0, 1], 0 outside the mask (brain or head)."""

    image: Volume
    mask: Bool[np.ndarray, "x y z"]


def head(image: Volume, mask: Bool[np.ndarray, "x y z"]) -> Head:
    """An image and its mask (on its grid) at `ALIGN_MM`."""
    normal = Volume(normalize(image.array, mask), image.affine)
    small = coarse(normal)
    inside = coarse(Volume(mask, image.affine), labels=True).array
    return Head(Volume(np.where(inside, small.array, 0), small.affine), inside)


def mean_head(
    heads: Sequence[Head],
    align: Callable[[Head, Sequence[Head]], list[Float[np.ndarray, "4 4"] | None]],
    *,
    spacing_mm: float,
    rounds: int,
) -> Head:
    """The mean of subjects aligned to the first of them, then `rounds` times to their mean.

    `align` returns each subject's pull-back, or None where it failed: it is not in this mean, and
    tried again with the next. After each round the space is moved by the mean of the matrices'
    logarithms, so that the mean has the subjects' mean size and pose.
    """
    mean = heads[0]
    for _ in range(rounds + 1):
        aligned = zip(heads, align(mean, heads), strict=True)
        kept = [(one, to_head) for one, to_head in aligned if to_head is not None]
        if not kept:
            raise InputError("template: no subject could be aligned to it; give --template FILE.")
        to_mean = linalg.expm(np.mean([_log(to_head) for _, to_head in kept], axis=0))
        to_heads = [to_head @ np.linalg.inv(to_mean) for _, to_head in kept]
        used = [one for one, _ in kept]
        mean = average(used, to_heads, grid_over(used, to_heads, spacing_mm))
    return mean


def evenly_spaced(subjects: Sequence[Any]) -> list[Any]:
    """Up to `MEAN_SUBJECTS` of a list, evenly spread over it."""
    count = min(MEAN_SUBJECTS, len(subjects))
    return [subjects[n] for n in np.linspace(0, len(subjects) - 1, count).round().astype(int)]


def _log(matrix: np.ndarray) -> np.ndarray:
    log: Any = linalg.logm(matrix)
    if np.abs(log.imag).max() > 1e-6:  # half a turn, or a mirror
        raise InputError("template: subjects differ by half a turn or more; give --template FILE.")
    return np.real(log)


def grid_over(
    heads: Sequence[Head], to_heads: Sequence[Float[np.ndarray, "4 4"]], spacing_mm: float
) -> Grid:
    """An isotropic RAS grid around the masks with `MARGIN_MM`, sizes multiples of 8.

    The box is that of all but the widest tenth on each side: one failed alignment is not to
    stretch it.
    """
    lows, highs = [], []
    for one, to_head in zip(heads, to_heads, strict=True):
        if not one.mask.any():
            raise InputError("template: expected a brain, got an empty mask.")
        at = np.argwhere(one.mask) @ one.image.affine[:3, :3].T + one.image.affine[:3, 3]
        back = np.linalg.inv(to_head)
        at = at @ back[:3, :3].T + back[:3, 3]
        lows.append(at.min(axis=0))
        highs.append(at.max(axis=0))
    low, high = np.quantile(lows, 0.1, axis=0), np.quantile(highs, 0.9, axis=0)
    x, y, z = (8 * np.ceil((high - low + 2 * MARGIN_MM) / spacing_mm / 8)).astype(int).tolist()
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = np.round((low + high) / 2, 1) - spacing_mm * (np.array([x, y, z]) - 1) / 2
    return Grid((x, y, z), affine)


def average(
    heads: Sequence[Head], to_heads: Sequence[Float[np.ndarray, "4 4"]], grid: Grid
) -> Head:
    """The mean of subjects on a grid, each under its own matrix; what half of them cover counts."""
    total = np.zeros(grid.shape, np.float32)
    inside = np.zeros(grid.shape, np.float32)
    for one, to_head in zip(heads, to_heads, strict=True):
        values, mask = resample_masked(one.image, one.mask, to_head, grid)
        total += np.where(mask, values, 0)
        inside += mask
    mask = inside >= len(heads) / 2
    return Head(Volume(np.where(mask, total / np.maximum(inside, 1), 0), grid.affine), mask)
