"""How a scanner sees a head: random slices with their profile, and Rician noise."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxreg.training.augmentation.synthesis.atlas import View
from jaxreg.training.augmentation.synthesis.noise import centred


def acquired(key: PRNGKeyArray, image: Float[Array, "i j k"], view: View) -> Float[Array, "x y z"]:
    """The image in random slices with Rician noise, read back linearly on the network's grid.

    Slices thinner than the grid's voxels are averaged over their own thickness and as far apart as
    the voxels.
    """
    keys = jax.random.split(key, 9)
    in_plane = jax.random.uniform(keys[0], (3,), minval=0.8, maxval=2.5)
    through = jax.random.uniform(keys[1], minval=1.0, maxval=7.0)
    thick = jnp.arange(3) == jax.random.randint(keys[2], (), 0, 3)
    apart_mm = jnp.where(thick & jax.random.bernoulli(keys[3], 0.6), through, in_plane)
    width_mm = apart_mm * jax.random.uniform(keys[4], (3,), minval=0.7, maxval=1.2)
    apart_mm = jnp.maximum(apart_mm, view.spacing_mm)
    phase = jax.random.uniform(keys[5], (3,), minval=-0.5, maxval=0.5)
    box = jax.random.bernoulli(keys[6])
    forth, back = [], []
    for axis, n in enumerate(view.shape):
        slices = (centred(n, 1.0) + phase[axis]) * apart_mm[axis]
        voxels = centred(2 * n, view.spacing_mm / 2)
        forth.append(_profile(slices, voxels, width_mm[axis], box, view.spacing_mm / 2))
        back.append(_read_back(centred(n, view.spacing_mm), slices, apart_mm[axis]))
    level = jnp.exp(jax.random.uniform(keys[7], minval=np.log(0.003), maxval=np.log(0.08)))
    a, b = level * jax.random.normal(keys[8], (2, *view.shape))
    signal = along_axes(forth, image)
    return along_axes(back, jnp.sqrt(jnp.square(signal + a) + jnp.square(b)))


def in_slices(
    key: PRNGKeyArray, image: Float[Array, "x y z"], *, spacing_mm: tuple[float, float, float]
) -> Float[Array, "x y z"]:
    """The image in thick slices across a random axis, read back linearly on its own grid.

    Slices lie 1.25 to 3.5 voxels apart (2.5 to 7 mm where voxels have 2 mm) and are 0.7 to 1.2
    times as thick.
    """
    axis_key, apart_key, width_key, phase_key, box_key = jax.random.split(key, 5)
    across = jax.random.randint(axis_key, (), 0, 3)
    apart = jax.random.uniform(apart_key, minval=1.25, maxval=3.5)
    width = apart * jax.random.uniform(width_key, minval=0.7, maxval=1.2)
    phase = jax.random.uniform(phase_key, minval=-0.5, maxval=0.5)
    box = jax.random.bernoulli(box_key)
    matrices = []
    for axis, (n, voxel_mm) in enumerate(zip(image.shape, spacing_mm, strict=True)):
        voxels, slices = centred(n, voxel_mm), (centred(n, 1.0) + phase) * apart * voxel_mm
        seen = _profile(slices, voxels, width * voxel_mm, box, voxel_mm)
        matrix = _read_back(voxels, slices, apart * voxel_mm) @ seen
        matrices.append(jnp.where(across == axis, matrix, jnp.eye(n)))
    return along_axes(matrices, image)


def _read_back(voxels, slices, apart_mm):
    """Weights [voxels, slices] of linear interpolation between slices; those of a row sum to 1."""
    weights = jnp.maximum(1 - jnp.abs(voxels[:, None] - slices[None]) / apart_mm, 0)
    return weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-6)


def _profile(slices, voxels, width_mm, box, voxel_mm):
    """Weights [slices, voxels] of slices with a full width at half maximum, box or Gaussian."""
    off = jnp.abs(slices[:, None] - voxels[None])
    flat = jax.nn.sigmoid((width_mm / 2 - off) / (0.25 * voxel_mm))
    sigma = jnp.maximum(width_mm / 2.355, 0.4 * voxel_mm)
    weights = jnp.where(box, flat, jnp.exp(-0.5 * jnp.square(off / sigma)))
    return weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-6)


def along_axes(
    matrices: Sequence[Float[Array, "_ _"]], image: Float[Array, "i j k"]
) -> Float[Array, "x y z"]:
    """A matrix for each axis applied to an image."""
    for equation, matrix in zip(
        ("ix,xyz->iyz", "jy,xyz->xjz", "kz,xyz->xyk"), matrices, strict=True
    ):
        image = jnp.einsum(equation, matrix, image)
    return image
