"""Which voxels of an image show the head or the brain, where no mask says it."""

from typing import Any

import numpy as np
from scipy import ndimage

from jaxreg.data.prepare.template import coarse
from jaxreg.geometry.grid import Volume


def foreground(image: Volume) -> Volume:
    """The mask of an image that has none: what was cut out, or else the whole head.

    Where a quarter of the voxels or more share the lowest value, that is the background. Otherwise
    the background is air with noise: the head is the largest connected part brighter than half of
    Otsu's threshold at `ALIGN_MM`, holes filled.
    """
    lowest = image.array == image.array.min()
    if lowest.mean() >= 0.25:
        return Volume(~lowest, image.affine)
    values, affine = coarse(image)
    bright = values > (float(values.min()) + _otsu(values)) / 2
    labelled: Any = ndimage.label(ndimage.binary_opening(bright, iterations=2))
    sizes = np.bincount(labelled[0].ravel(), minlength=2)[1:]
    largest = np.pad(labelled[0] == 1 + int(np.argmax(sizes)), 3)  # closing erodes at the border
    closed = ndimage.binary_closing(largest, iterations=3)[3:-3, 3:-3, 3:-3]
    return Volume(np.asarray(ndimage.binary_fill_holes(closed)), affine)


def _otsu(image: np.ndarray) -> float:
    """Otsu's threshold (1979) of 256 bins up to the 99th percentile."""
    top = float(np.percentile(image, 99))
    counts, edges = np.histogram(np.minimum(image, top), bins=256)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    between = (sums * below[-1] - sums[-1] * below) ** 2 / np.maximum(below * above, 1)
    return float(middles[int(np.argmax(between))])
