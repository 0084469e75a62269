"""Regularisers of the velocity. It counts as zero outside its grid: a constant one costs too."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def diffusion(velocity: Float[Array, "x y z 3"]) -> Float[Array, ""]:
    """Mean over voxels of ‖∇v‖² (Frobenius): forward differences in the velocity's own voxels.

    Differences to the zeros outside the grid count, divided by the number of voxels inside.
    """
    total = jnp.zeros(())
    for axis in range(3):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        total += jnp.sum(jnp.square(jnp.diff(jnp.pad(velocity, pad), axis=axis)))
    return total / (velocity.size // 3)


def l2(velocity: Float[Array, "x y z 3"]) -> Float[Array, ""]:
    """Mean over voxels of ‖v‖², as the paper prints it."""
    return jnp.mean(jnp.sum(jnp.square(velocity), axis=-1))


REGULARIZERS = {"diffusion": diffusion, "l2": l2}
"""The function of each `--regularizer`."""
