"""Intensities as the segmentation network expects them, in training and afterwards."""

import jax.numpy as jnp
from jaxtyping import Array, Float

_STRIDE = 3
"""Every third voxel along each axis is enough to estimate a percentile."""


def normalize(image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """The image in [0, 1]: its 0.5th percentile is 0, the 99.5th of its foreground is 1.

    The foreground is what lies above the mean. Percentiles are those of every third voxel along
    each axis.
    """
    values = jnp.sort(image[1::_STRIDE, 1::_STRIDE, 1::_STRIDE].reshape(-1))
    n = values.size
    low = values[round(0.005 * (n - 1))]
    below = jnp.sum(values <= jnp.mean(values))
    position = below + jnp.round(0.995 * (n - 1 - below)).astype(jnp.int32)
    high = values[jnp.clip(position, 0, n - 1)]
    return jnp.clip((image - low) / jnp.maximum(high - low, 1e-6), 0, 1)
