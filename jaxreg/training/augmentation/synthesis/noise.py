"""Smooth random fields on centred grids."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def smooth_noise(
    noise: Float[Array, "*c i j k"],
    shape: tuple[int, ...],
    *,
    spacing_mm: float,
    node_mm: float,
    sigma_mm: Float[Array, ""] | float,
) -> Float[Array, "*c x y z"]:
    """White noise at nodes, smoothed by a Gaussian and read at the voxels of a centred grid.

    Of standard deviation 1 everywhere for white noise of 1, whatever the Gaussian's width.
    """
    letters = (("i", "x"), ("j", "y"), ("k", "z"))
    for axis, (node, voxel) in enumerate(letters):
        nodes = centred(noise.shape[axis - 3], node_mm)
        at = centred(shape[axis], spacing_mm)[:, None] - nodes[None]
        weights = jnp.exp(-0.5 * jnp.square(at / jnp.maximum(sigma_mm, 0.7 * node_mm)))
        weights = weights * jax.lax.rsqrt(jnp.sum(weights**2, axis=1, keepdims=True) + 1e-12)
        before = "".join(v for _, v in letters[:axis])
        after = "".join(n for n, _ in letters[axis + 1 :])
        noise = jnp.einsum(
            f"{voxel}{node},...{before}{node}{after}->...{before}{voxel}{after}", weights, noise
        )
    return noise


def centred(n: int, spacing_mm: float) -> Float[Array, " n"]:
    """Positions of n voxels about their centre, in millimetres."""
    return jnp.asarray((np.arange(n) - (n - 1) / 2) * spacing_mm, jnp.float32)


def node_counts(shape: tuple[int, ...], spacing_mm: float, node_mm: float) -> tuple[int, ...]:
    """How many nodes lie along each axis of a grid, one beyond each end."""
    return tuple(int(np.ceil(n * spacing_mm / node_mm)) + 2 for n in shape)
