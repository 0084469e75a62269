"""What an image does not show: the head around the brain, the hindbrain, a side of the grid."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, UInt8

from jaxreg.data.label_codes import CODES, NUMBERS, REST
from jaxreg.data.prepare.freesurfer_labels import HINDBRAIN
from jaxreg.training.augmentation.synthesis.acquisition import along_axes
from jaxreg.training.augmentation.synthesis.noise import centred, node_counts, smooth_noise

SIDE_CUT = 0.05
"""Probability that a side of the grid is out of view, for each of the six; a quarter of the images
lack one or more."""
BLUR_MM = 4.0
"""Standard deviation of the Gaussian that measures how near the brain is."""

_IS_HINDBRAIN = np.isin(np.arange(CODES), [NUMBERS.index(n) for n in HINDBRAIN])


def random_extraction(
    key: PRNGKeyArray, brain: Bool[Array, "x y z"], spacing_mm: float
) -> Bool[Array, "x y z"]:
    """The brain as a tool might extract it: from 2 mm too tight to 8 mm too wide.

    The blurred brain is Φ(−d / BLUR_MM) at the distance d outside a flat border.
    """
    margin_key, noise_key = jax.random.split(key)
    node_mm = 12.0
    margin = jax.random.uniform(margin_key, minval=-2.0, maxval=8.0)
    noise = jax.random.normal(noise_key, node_counts(brain.shape, spacing_mm, node_mm))
    margin = margin + smooth_noise(
        noise, brain.shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=12.0
    )
    blurred = _blurred(brain.astype(jnp.float32), spacing_mm)
    return blurred > jax.scipy.stats.norm.cdf(-margin / BLUR_MM)


def around_hindbrain(codes: UInt8[Array, "x y z"], spacing_mm: float) -> Bool[Array, "x y z"]:
    """Cerebellum, fourth ventricle and brain stem, and the rest of the brain that is nearest."""
    hindbrain = jnp.asarray(_IS_HINDBRAIN)[codes]
    other = (codes > 0) & (codes < REST) & ~hindbrain
    near, far = (_blurred(part.astype(jnp.float32), spacing_mm) for part in (hindbrain, other))
    return hindbrain | ((codes == REST) & (near > far))


def _blurred(image, spacing_mm):
    """The image smoothed by a Gaussian of BLUR_MM, as if it went on unchanged beyond the grid."""
    blur = []
    for n in image.shape:
        at = centred(n, spacing_mm)
        weights = jnp.exp(-0.5 * jnp.square((at[:, None] - at[None]) / BLUR_MM))
        blur.append(weights / jnp.sum(weights, axis=1, keepdims=True))
    return along_axes(blur, image)


def in_view(key: PRNGKeyArray, shape: tuple[int, int, int]) -> Bool[Array, "x y z"]:
    """Which voxels lie in the field of view: sometimes a side of the grid does not."""
    choice_key, depth_key = jax.random.split(key)
    cut = jax.random.bernoulli(choice_key, SIDE_CUT, (3, 2))
    depth = jnp.where(cut, 0.35 * jax.random.uniform(depth_key, (3, 2)), 0)
    seen = []
    for axis, n in enumerate(shape):
        at = jnp.asarray((np.arange(n) + 0.5) / n, jnp.float32)
        inside = (at > depth[axis, 0]) & (at < 1 - depth[axis, 1])
        seen.append(inside.reshape([-1 if a == axis else 1 for a in range(3)]))
    return functools.reduce(jnp.logical_and, seen)
