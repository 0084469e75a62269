"""Sampling within a voxel by shifted volumes, against SciPy and against gathering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg import spatial, stencil

SHAPES = [(5, 7, 6), (1, 2, 3), (4, 1, 2)]


def _random(shape, seed=0, low=-1.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_are_scipys_up_to_a_whole_voxel_away(shape):
    volume, displacement = _random((2, *shape)), _random((3, *shape), 1)
    displacement[0].flat[0], displacement[2].flat[-1] = -1.0, 1.0
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) + displacement
    wanted = [ndimage.map_coordinates(c, points, order=1, mode="nearest") for c in volume]
    got = stencil.sample_near(jnp.asarray(volume), jnp.asarray(displacement))
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_cotangents_are_those_of_gathering(shape):
    volume, cotangent = (jnp.asarray(_random((2, *shape), k)) for k in (0, 2))
    displacement = jnp.asarray(_random((3, *shape), 1))

    def gathered(volume, displacement):
        last = [jnp.moveaxis(x, 0, -1) for x in (volume, displacement)]
        return jnp.moveaxis(spatial.warp(*last), -1, 0)

    by_volume, by_displacement = jax.vjp(gathered, volume, displacement)[1](cotangent)
    adjoint = stencil.near_adjoint(displacement, cotangent)
    slopes = stencil.near_slopes(volume, displacement, cotangent)
    np.testing.assert_allclose(adjoint, by_volume, atol=1e-5)
    np.testing.assert_allclose(slopes, by_displacement, atol=1e-5)


def test_a_voxel_that_does_not_move_has_the_slope_of_a_step_upward():
    volume, still = jnp.asarray(_random((1, 4, 5, 6))), jnp.zeros((3, 4, 5, 6))
    slopes = stencil.near_slopes(volume, still, jnp.ones_like(volume))
    np.testing.assert_allclose(slopes[0, :-1], np.diff(volume[0], axis=0), atol=1e-6)


@pytest.mark.parametrize("largest", [0.5, 20.0])
def test_a_batch_of_small_and_large_velocities_gives_what_each_gives(largest):
    """Whether one of a batch moves by more than a voxel decides for all; vmap twice as for λ."""
    velocities = jnp.asarray(_random((2, 2, 6, 7, 5, 3))).at[1, 0].multiply(largest)

    def loss(velocity):
        return jnp.sum(jnp.sin(spatial.exponentiate(velocity, squarings=3)))

    got = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(loss))))(velocities)
    for i, j in np.ndindex(2, 2):
        value, gradient = jax.value_and_grad(loss)(velocities[i, j])
        np.testing.assert_allclose(got[0][i, j], value, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got[1][i, j], gradient, rtol=1e-3, atol=1e-4)
