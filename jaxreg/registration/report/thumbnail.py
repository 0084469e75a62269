"""A small picture of a result for a table of many: the moved image, the fixed one's edges."""

import io

import numpy as np
from jaxtyping import Bool, Real, UInt8
from PIL import Image
from scipy import ndimage

from jaxreg.registration.report.encoding import grey, intensity_window

HEIGHT = 72
"""Pixels; the width follows from the three slices side by side."""
_EDGE = (255, 176, 0)
_EDGES_PERCENTILE = 85
"""Of the gradient's length within the brain: what lies above is drawn as an edge."""
_QUALITY = 72


def thumbnail(
    fixed: Real[np.ndarray, "x y z"],
    moved: Real[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> bytes:
    """A JPEG of about 5 kB: axial, coronal and sagittal slice through the middle of the brain.

    Args:
        fixed: the fixed image on a grid along RAS, any range of intensities; 0 outside the brain.
        moved: the moved image on the same grid.
        spacing_mm: voxel size.
    """
    levels = [grey(image, intensity_window(image)) for image in (fixed, moved)]
    middle = _middle(levels[0])
    slices = []
    for normal in (2, 1, 0):
        at = [np.take(volume, middle[normal], axis=normal) for volume in levels]
        spacing = [s for axis, s in enumerate(spacing_mm) if axis != normal]
        slices.append(_slice(at[0], at[1], (spacing[0], spacing[1])))
    page = Image.fromarray(np.concatenate(slices, axis=1))
    stream = io.BytesIO()
    page.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()


def _middle(levels: UInt8[np.ndarray, "x y z"]) -> tuple[int, int, int]:
    """The voxel in the middle of what is not black."""
    found = []
    for axis, size in enumerate(levels.shape):
        inside = np.flatnonzero(levels.any(axis=tuple(a for a in range(3) if a != axis)))
        found.append(int((inside[0] + inside[-1]) // 2) if len(inside) else size // 2)
    return found[0], found[1], found[2]


def _slice(
    fixed: UInt8[np.ndarray, "i j"], moved: UInt8[np.ndarray, "i j"], spacing: tuple[float, float]
) -> UInt8[np.ndarray, "h w c"]:
    """A slice, its second axis upwards, `HEIGHT` pixels high, with square pixels."""
    width = round(HEIGHT * fixed.shape[0] * spacing[0] / (fixed.shape[1] * spacing[1]))
    size = (max(width, 8), HEIGHT)
    shown = [
        np.asarray(Image.fromarray(np.rot90(image)).resize(size, Image.Resampling.BILINEAR))
        for image in (fixed, moved)
    ]
    picture = np.repeat(shown[1][..., None], 3, axis=2)
    picture[_edges(shown[0])] = _EDGE
    return picture


def _edges(image: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The ridges of the gradient of a slice."""
    length = np.asarray(ndimage.gaussian_gradient_magnitude(image.astype(np.float32), 1.0))
    inside = image > 0
    if not inside.any():
        return inside
    largest = np.asarray(ndimage.maximum_filter(length, size=(1, 3)))
    other = np.asarray(ndimage.maximum_filter(length, size=(3, 1)))
    ridge = (length >= largest) | (length >= other)
    return ridge & (length > max(float(np.percentile(length[inside], _EDGES_PERCENTILE)), 1.0))
