"""Intensities as every network and loss sees them: robust percentiles to [0, 1], background 0."""

import numpy as np
from jaxtyping import Bool, Float

from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.resampling import resample_masked


def normalize(
    image: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    percentiles: tuple[float, float] = (0.1, 99.5),
    ignored: Bool[np.ndarray, "x y z"] | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Intensities in [0, 1], 0 outside the mask.

    The upper percentile inside the mask becomes 1. What becomes 0 is 0 itself, or the lower
    percentile where that is negative: magnitude images keep their zero. Voxels that are ignored, as
    in a lesion, do not count in the percentiles.
    """
    counted = mask if ignored is None else mask & ~ignored
    low, high = np.percentile(image[counted], percentiles) if counted.any() else (0.0, 1.0)
    low = min(float(low), 0.0)
    scaled = np.clip((image - low) / max(float(high) - low, 1e-12), 0, 1)
    return np.where(mask, scaled, 0).astype(np.float32)


def normalized_on_grid(
    image: Volume,
    mask: Bool[np.ndarray, "x y z"],
    to_image: Float[np.ndarray, "4 4"],
    grid: Grid,
    *,
    zero: float = 0.0,
    ignored: Bool[np.ndarray, "i j k"] | None = None,
) -> tuple[Float[np.ndarray, "i j k"], Bool[np.ndarray, "i j k"]]:
    """An image on another grid, in [0, 1], and its brain there, outside of which it is 0.

    `to_image` takes the grid's mm to the image's, `zero` is the intensity that counts as 0, and
    `ignored` are voxels of the grid that do not count in the percentiles.
    Training and registration both see images so.
    """
    values, inside = resample_masked(image, mask, to_image, grid)
    return normalize(values - np.float32(zero), inside, ignored=ignored), inside
