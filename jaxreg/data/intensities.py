"""Intensities as every network and loss sees them: robust percentiles to [0, 1], background 0."""

import numpy as np
from jaxtyping import Bool, Float


def normalize(
    image: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    percentiles: tuple[float, float] = (0.1, 99.5),
) -> Float[np.ndarray, "x y z"]:
    """Intensities in [0, 1], 0 outside the mask.

    The upper percentile inside the mask becomes 1. What becomes 0 is 0 itself, or the lower
    percentile where that is negative: magnitude images keep their zero.
    """
    low, high = np.percentile(image[mask], percentiles) if mask.any() else (0.0, 1.0)
    low = min(float(low), 0.0)
    scaled = np.clip((image - low) / max(float(high) - low, 1e-12), 0, 1)
    return np.where(mask, scaled, 0).astype(np.float32)
