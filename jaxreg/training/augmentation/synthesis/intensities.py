"""Random intensities of every class, and what lies on them: textures, lesions, a bias field."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from jaxreg.data.label_codes import CLASSES, CODES, FIRST_CLUSTER, FIRST_HEAD, MIRRORED, NUMBERS
from jaxreg.training.augmentation.synthesis.noise import node_counts, smooth_noise

LESION = 0.1
"""Share of the images with a lesion."""

_LEFT_OF = np.minimum(np.arange(CODES), MIRRORED)
_WHITENESS = {
    **dict.fromkeys((3, 42), (0.0, 0.0)),
    **dict.fromkeys((8, 47, 17, 53, 18, 54), (-0.1, 0.2)),
    **dict.fromkeys((2, 41), (1.0, 1.0)),
    **dict.fromkeys((7, 46), (0.8, 1.1)),
    16: (0.6, 1.0),
    **dict.fromkeys((28, 60), (0.5, 0.95)),
    **dict.fromkeys((10, 49), (0.15, 0.8)),
    **dict.fromkeys((11, 50, 26, 58), (-0.1, 0.4)),
    **dict.fromkeys((12, 51), (0.0, 0.5)),
    **dict.fromkeys((13, 52), (0.4, 1.1)),
}
"""How far a structure's intensity lies from grey (0) to white matter (1): lowest and highest."""
_FLUID = (4, 5, 14, 15, 24, 43, 44)
_IS_FLUID = np.isin(np.arange(CODES), [NUMBERS.index(n) for n in _FLUID])
_RANGE = np.array([_WHITENESS.get(NUMBERS[c] if c < CLASSES else 0, (0, 1)) for c in range(CODES)])
_BONE = (FIRST_HEAD + 11, FIRST_CLUSTER)
"""Codes of bone: the class 511, and the darkest cluster."""


def random_intensities(
    key: PRNGKeyArray, codes: UInt8[Array, "x y z"], spacing_mm: float
) -> Float[Array, "x y z"]:
    """An image in which every class has a random intensity and texture, both sides alike."""
    table_key, texture_key, sigma_key = jax.random.split(key, 3)
    means, deviations = _class_intensities(table_key)
    node_mm = 1.5 * spacing_mm * 2
    noise = jax.random.normal(texture_key, node_counts(codes.shape, spacing_mm, node_mm))
    sigma_mm = node_mm * jnp.exp(jax.random.uniform(sigma_key, maxval=1.5))
    texture = smooth_noise(
        noise, codes.shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=sigma_mm
    )
    return jnp.maximum(means[codes] + deviations[codes] * texture, 0)


def _class_intensities(key):
    """(mean, standard deviation) of every code, each `[CODES]`."""
    keys = jax.random.split(key, 10)
    free = jax.random.uniform(keys[0], (CODES,))
    levels = jnp.sort(jax.random.uniform(keys[1], (3,)))
    # Fluid, grey, white as in T1w, T2w and FLAIR images, or in any other order.
    orders = jnp.array(
        [[0, 1, 2], [0, 1, 2], [2, 1, 0], [2, 1, 0], [0, 2, 1], [1, 0, 2], [1, 2, 0]]
    )
    fluid, grey, white = levels[orders[jax.random.randint(keys[2], (), 0, len(orders))]]
    low, high = jnp.asarray(_RANGE.T, jnp.float32)
    whiteness = low + (high - low) * jax.random.uniform(keys[3], (CODES,))
    tissue = jnp.where(jnp.asarray(_IS_FLUID), fluid, grey + (white - grey) * whiteness)
    tissue = tissue + 0.03 * jax.random.normal(keys[4], (CODES,))
    structured = jax.random.bernoulli(keys[5], 0.6)
    in_brain = np.arange(CODES) < CLASSES
    means = jnp.where(structured & in_brain, tissue, free)
    bone = np.isin(np.arange(CODES), _BONE)
    means = jnp.where(bone & jax.random.bernoulli(keys[6], 0.6), 0.3 * means, means)
    most = jnp.where(structured & in_brain, 0.06, 0.12)
    deviations = most * jax.random.uniform(keys[7], (CODES,))
    air = jnp.where(jax.random.bernoulli(keys[8], 0.85), 0.02, 0.8) * free[0]
    deviations = deviations.at[0].set(0.1 * air)
    means = jnp.maximum(means.at[0].set(air), 0)
    return means[_LEFT_OF], deviations[_LEFT_OF]


def with_lesion(
    key: PRNGKeyArray,
    image: Float[Array, "x y z"],
    codes: UInt8[Array, "x y z"],
    spacing_mm: float,
) -> Float[Array, "x y z"]:
    """The image, in a share of the cases with blobs of another intensity in the brain."""
    choice_key, noise_key, level_key, size_key = jax.random.split(key, 4)
    node_mm = 8.0
    noise = jax.random.normal(noise_key, node_counts(codes.shape, spacing_mm, node_mm))
    blobs = smooth_noise(noise, codes.shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=8.0)
    threshold = jax.random.uniform(size_key, minval=1.5, maxval=3.0)
    there = (blobs > threshold) & (codes > 0) & (codes < CLASSES)
    there = there & jax.random.bernoulli(choice_key, LESION)
    return jnp.where(there, jax.random.uniform(level_key), image)


def random_bias(
    key: PRNGKeyArray, shape: tuple[int, ...], spacing_mm: float
) -> Float[Array, "x y z"]:
    """A smooth factor about 1 at each voxel."""
    noise_key, sigma_key, size_key = jax.random.split(key, 3)
    node_mm = 24.0
    noise = jax.random.normal(noise_key, node_counts(shape, spacing_mm, node_mm))
    sigma_mm = jax.random.uniform(sigma_key, minval=25.0, maxval=80.0)
    size = 0.4 * jax.random.uniform(size_key)
    return jnp.exp(
        size * smooth_noise(noise, shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=sigma_mm)
    )
