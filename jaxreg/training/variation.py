"""Contrast that varies in training, for scanners that the cohort does not show."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

LOG_GAMMA = 0.4
"""The exponent of the intensities lies in exp(±0.4)."""
LOG_BIAS = 0.15
"""Standard deviation of the logarithm of the bias field at its 4×4×4 nodes."""
NOISE = 0.03
"""Largest standard deviation of the noise, intensities in [0, 1]."""


def vary_intensities(
    key: PRNGKeyArray, image: Float[Array, "x y z 1"], mask: Bool[Array, "x y z"]
) -> Float[Array, "x y z 1"]:
    """The image under a random gamma, smooth bias field and noise, in [0, 1]; 0 outside the mask.

    After Billot et al., SynthSeg (MedIA 2023), whose images get the same three.
    """
    gamma_key, bias_key, level_key, noise_key = jax.random.split(key, 4)
    gamma = jnp.exp(jax.random.uniform(gamma_key, minval=-LOG_GAMMA, maxval=LOG_GAMMA))
    nodes = LOG_BIAS * jax.random.normal(bias_key, (4, 4, 4))
    bias = jnp.exp(jax.image.resize(nodes, mask.shape, "linear"))
    level = jax.random.uniform(level_key, maxval=NOISE)
    noise = level * jax.random.normal(noise_key, mask.shape)
    seen = jnp.clip(image[..., 0] ** gamma * bias + noise, 0, 1)
    return jnp.where(mask, seen, 0)[..., None]
