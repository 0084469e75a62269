"""Background, foreground, and whether it is a brain, of images for which no mask says it."""

from typing import Any, NamedTuple

import numpy as np
import scipy  # ndimage is loaded when it is used
from jaxtyping import Bool, Float, Shaped

from jaxreg.geometry import resampling
from jaxreg.geometry.connected import fill_holes
from jaxreg.geometry.grid import Volume

ALIGN_MM = 2.0
"""Volumes are averaged to this spacing before they are aligned (coarser ones stay)."""
CUT_SHARE = 0.25
"""From this share of the voxels on, one value is a background to which an image was cut."""
FACE_SHARE = 0.5
"""This share of a field of view's outer voxels has a background that is not the lowest value."""
RIPPLE, RIPPLED_SHARE = 0.02, 0.1
"""Values so close to the background, as a share of the image's span, belong to it where at least
this share of them is not the very value."""
STILL = 0.004
"""Outer voxels that scatter less than this, as a share of the span, are no air: noise of scanners
is a percent and more."""
FEW = 0.01
"""A smaller share of the voxels below the background is undershoot beside edges."""
BRAIN_LITRES = 2.5
"""A foreground cut out and no larger than this is a brain; a head has three or more."""


class Foreground(NamedTuple):
    """What an image shows, on its own grid.

    `background_share` is that of the voxels with the background's value, None where the background
    is air with noise and the foreground the whole head.
    """

    mask: Bool[np.ndarray, "x y z"]
    background_share: float | None
    litres: float

    @property
    def is_brain(self) -> bool:
        """Whether a brain was cut out of its background, and no head."""
        return self.background_share is not None and self.litres <= BRAIN_LITRES


class Background(NamedTuple):
    """The value to which an image was cut, and how far off it other background values lie."""

    value: float
    ripple: float


def background(array: Shaped[np.ndarray, "x y z"]) -> Background | None:
    """The value to which an image was cut, the most frequent one; None where there is none.

    It is the lowest value where a quarter of the voxels have that. Otherwise it is the most
    frequent value of the field of view's outer voxels, where it has half of these and a quarter of
    all: a brain of standardised intensities lies in zeros, which are not the lowest value. Without
    such a value it is the median of the outer voxels, where they scatter about it much less than
    air does, as after resampling by splines or compression, and a quarter of all lie close to it.
    """
    faces = _faces(array)
    value = _exact_background(array, faces)
    if value is None:
        return _still_background(array, faces)
    span = _span(array, value)
    near = np.abs(array - value) <= RIPPLE * span
    beside = float((array[near] != value).mean())
    return Background(value, RIPPLE * span if beside >= RIPPLED_SHARE else 0.0)


def background_value(array: Shaped[np.ndarray, "x y z"]) -> float | None:
    """The value of an image's background; None where there is none of one value."""
    faces = _faces(array)
    value = _exact_background(array, faces)
    if value is not None:
        return value
    found = _still_background(array, faces)
    return None if found is None else found.value


def zero_intensity(array: Shaped[np.ndarray, "x y z"]) -> float:
    """The intensity that stands for no signal: 0, or a positive background with nothing below it.

    Such an image was shifted as a whole. A negative background is a mark, and the rest keeps its 0.
    """
    positive = (background_value(array) or 0.0) > 0  # seldom, and the rest takes its time
    found = background(array) if positive else None
    if found is None:
        return 0.0
    below = float((array < found.value - found.ripple).mean())
    return 0.0 if below > FEW else found.value


def foreground(image: Volume) -> Foreground:
    """The foreground of an image that has no mask: what was cut out, or else the whole head.

    Without a background of one value, the background is air with noise: the head is the largest
    connected part brighter than half of Otsu's threshold at `ALIGN_MM`, holes filled.
    """
    found = background(image.array)
    voxel_litres = abs(np.linalg.det(image.affine[:3, :3])) / 1e6
    if found is not None:
        mask = np.abs(image.array - found.value) > found.ripple
        if found.ripple:
            mask = _without_specks(mask)
        shown = Foreground(mask, 1 - float(mask.mean()), float(mask.sum() * voxel_litres))
        if shown.is_brain or not found.ripple:
            return shown
    mask = resampling.mask_like(_head(image), image, np.eye(4))
    return Foreground(mask, None, float(mask.sum() * voxel_litres))


def _faces(array: np.ndarray) -> np.ndarray:
    """The outer voxels of a volume."""
    return np.concatenate(
        [np.moveaxis(array, axis, 0)[side].ravel() for axis in range(3) for side in (0, -1)]
    ).astype(np.float64)


def _still_background(array: np.ndarray, faces: np.ndarray) -> Background | None:
    """The median of the outer voxels, where they scatter less about it than air does."""
    middle = float(np.median(faces))
    span = _span(array, middle)
    if 1.4826 * np.median(np.abs(faces - middle)) > STILL * span:
        return None
    near = float((np.abs(array - middle) <= RIPPLE * span).mean())
    return Background(middle, RIPPLE * span) if near >= CUT_SHARE else None


def _exact_background(array: np.ndarray, faces: np.ndarray) -> float | None:
    """The one value of the background, where enough voxels have it."""
    lowest = array.min()
    if (array == lowest).mean() >= CUT_SHARE:
        return float(lowest)
    values, counts = np.unique(faces, return_counts=True)
    commonest = values[np.argmax(counts)]
    if counts.max() < FACE_SHARE * counts.sum() or (array == commonest).mean() < CUT_SHARE:
        return None
    return float(commonest)


def _span(array: np.ndarray, value: float) -> float:
    """How far the image's values lie from the background's, but for the outermost hundredth."""
    return float(np.percentile(np.abs(array - value), 99))


def _without_specks(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The large connected parts of a mask, holes filled."""
    labelled: Any = scipy.ndimage.label(mask)
    sizes = np.bincount(labelled[0].ravel())
    sizes[0] = 0
    large = sizes >= 0.01 * max(sizes.max(), 1)
    return fill_holes(large[labelled[0]])


def coarse(image: Volume, *, labels: bool = False) -> Volume:
    """A volume averaged to `ALIGN_MM`, or left at its finest spacing where that is coarser."""
    return resampling.resample(image, max(ALIGN_MM, min(image.spacing_mm)), labels=labels)


def _head(image: Volume) -> Volume:
    """The mask of a head in noisy air, at `ALIGN_MM`."""
    values, affine = coarse(image)
    bright = values > (float(values.min()) + _otsu(values)) / 2
    labelled: Any = scipy.ndimage.label(scipy.ndimage.binary_opening(bright, iterations=2))
    sizes = np.bincount(labelled[0].ravel(), minlength=2)[1:]
    largest = np.pad(labelled[0] == 1 + int(np.argmax(sizes)), 3)  # closing erodes at the border
    closed = scipy.ndimage.binary_closing(largest, iterations=3)[3:-3, 3:-3, 3:-3]
    return Volume(fill_holes(closed), affine)


def _otsu(image: Float[np.ndarray, "x y z"]) -> float:
    """Otsu's threshold (1979) of 256 bins up to the 99th percentile."""
    top = float(np.percentile(image, 99))
    counts, edges = np.histogram(np.minimum(image, top), bins=256)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    between = (sums * below[-1] - sums[-1] * below) ** 2 / np.maximum(below * above, 1)
    return float(middles[int(np.argmax(between))])
