"""How a subject lies in the image: a random pose and a smooth random deformation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxreg.training.augmentation.synthesis.atlas import Fields, View
from jaxreg.training.augmentation.synthesis.noise import node_counts, smooth_noise

UPRIGHT = 0.4
"""Share of the images of any pose that are upright up to TURN_UPRIGHT."""
TURN_DEGREES, TURN_UPRIGHT = 20.0, 30.0
SHIFT_MM, SHIFT_ANY_MM = 12.0, 50.0
LOG_SCALE, SHEAR = 0.15, 0.05
ELASTIC_MM = 4.0
"""Largest standard deviation of the elastic deformation."""


def random_pose(key: PRNGKeyArray, view: View) -> Float[Array, "4 4"]:
    """A random affine of millimetres about the centre of the grid, 4×4."""
    turn_key, any_key, upright_key, scale_key, shear_key, shift_key = jax.random.split(key, 6)
    largest = TURN_UPRIGHT if view.any_pose else TURN_DEGREES
    rotation = _rotation(np.deg2rad(largest) * jax.random.uniform(turn_key, (3,), minval=-1.0))
    shift_mm = SHIFT_ANY_MM if view.any_pose else SHIFT_MM
    if view.any_pose:
        upright = jax.random.bernoulli(upright_key, UPRIGHT)
        rotation = jnp.where(upright, rotation, _any_rotation(any_key))
        # Most heads lie near the middle of the field of view, some are partly out of it.
        shift_key, share_key = jax.random.split(shift_key)
        shift_mm = shift_mm * jax.random.uniform(share_key)
    scale = jnp.exp(LOG_SCALE * jax.random.uniform(scale_key, (3,), minval=-1.0))
    shear = SHEAR * jax.random.uniform(shear_key, (3,), minval=-1.0)
    zero, one = jnp.float32(0), jnp.float32(1)
    sheared = jnp.array([[one, shear[0], shear[1]], [zero, one, shear[2]], [zero, zero, one]])
    linear = product(rotation, sheared * scale[:, None])
    shift = shift_mm * jax.random.uniform(shift_key, (3,), minval=-1.0)
    return jnp.eye(4).at[:3, :3].set(linear).at[:3, 3].set(shift)


def random_elastic(key: PRNGKeyArray, view: View) -> Callable[[tuple[int, ...], float], Fields]:
    """A function of a grid: a smooth random displacement there, in millimetres."""
    noise_key, sigma_key, size_key = jax.random.split(key, 3)
    node_mm = 12.0
    noise = jax.random.normal(noise_key, (3, *node_counts(view.shape, view.spacing_mm, node_mm)))
    sigma_mm = jax.random.uniform(sigma_key, minval=10.0, maxval=25.0)
    # The wider, the larger: the gradient stays small enough for a map that does not fold.
    size = jax.random.uniform(size_key) * jnp.minimum(ELASTIC_MM, 0.2 * sigma_mm)

    def displacement(shape, spacing_mm) -> Fields:
        x, y, z = size * smooth_noise(
            noise, shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=sigma_mm
        )
        return x, y, z

    return displacement


def product(a: Float[Array, "i j"], b: Float[Array, "j k"]) -> Float[Array, "i k"]:
    """The matrix product in full float32, which is not the default on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _rotation(angles):
    """Turns about the three axes, one after another."""
    matrix = jnp.eye(3)
    for axis in range(3):
        a, b = [n for n in range(3) if n != axis]
        c, s = jnp.cos(angles[axis]), jnp.sin(angles[axis])
        turn = jnp.eye(3).at[a, a].set(c).at[b, b].set(c).at[a, b].set(-s).at[b, a].set(s)
        matrix = product(matrix, turn)
    return matrix


def _any_rotation(key):
    """A rotation drawn evenly from all, by a unit quaternion."""
    q = jax.random.normal(key, (4,))
    w, x, y, z = q / jnp.linalg.norm(q)
    return jnp.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
