"""The sampling convention against SciPy, matrix exponentials and analytic fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, ndimage

from jaxreg import spatial

SHAPE = (9, 12, 7)


def _volume(channels=1):
    return np.random.default_rng(0).normal(size=(*SHAPE, channels)).astype(np.float32)


def _points(rng, low=-2.0):
    return rng.uniform(low, np.array(SHAPE) + 1, size=(50, 3)).astype(np.float32)


@pytest.mark.parametrize("order", [0, 1])
def test_sample_is_scipys_map_coordinates_with_clamped_edges(order):
    volume, points = _volume(2), _points(np.random.default_rng(1))
    got = jax.jit(lambda v, p: spatial.sample(v, p, order=order))(volume, points)
    for channel in range(2):
        wanted = ndimage.map_coordinates(
            volume[..., channel], points.T, order=order, mode="nearest"
        )
        np.testing.assert_allclose(got[:, channel], wanted, atol=1e-5)  # float32 rounding


def test_gradients_of_sample_are_those_of_a_plain_implementation():
    volume, points = _volume(), _points(np.random.default_rng(2))

    def plain(volume, points):
        coordinates = [points[:, a] for a in range(3)]
        value = jax.scipy.ndimage.map_coordinates(
            volume[..., 0], coordinates, order=1, mode="nearest"
        )
        return jnp.sum(jnp.sin(value))

    def ours(volume, points):
        return jnp.sum(jnp.sin(spatial.sample(volume, points)))

    inside = points.clip(0.05, np.array(SHAPE, np.float32) - 1.05)
    got = jax.jit(jax.grad(ours, (0, 1)))(volume, inside)
    wanted = jax.grad(plain, (0, 1))(jnp.asarray(volume), jnp.asarray(inside))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_point_outside_the_grid_has_no_gradient_along_that_axis():
    volume = jnp.asarray(_volume())
    point = jnp.array([[-1.0, 4.3, 2.2]])
    gradient = jax.grad(lambda p: jnp.sum(spatial.sample(volume, p)))(point)
    assert gradient[0, 0] == 0 and gradient[0, 1] != 0


def test_an_integer_shift_is_a_slice():
    volume = jnp.asarray(_volume())
    shift = jnp.broadcast_to(jnp.array([2.0, 0.0, 1.0]), (*SHAPE, 3))
    moved = spatial.warp(volume, shift)
    np.testing.assert_allclose(moved[:-2, :, :-1], volume[2:, :, 1:], atol=1e-6)


def _linear(matrix, shape=(24, 26, 22)):
    centre = (np.array(shape) - 1) / 2
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre
    return (grid @ np.asarray(matrix).T).astype(np.float32), grid


def test_exp_of_a_linear_velocity_is_the_matrix_exponential():
    matrix = np.array([[0.05, 0.1, 0.0], [-0.08, 0.02, 0.03], [0.0, 0.04, -0.06]])
    velocity, grid = _linear(matrix)
    wanted = grid @ (linalg.expm(matrix) - np.eye(3)).T
    got = np.asarray(jax.jit(spatial.exponentiate)(velocity))
    inner = (slice(6, -6),) * 3  # paths from here never meet the clamped border
    np.testing.assert_allclose(got[inner], wanted[inner], atol=5e-3)  # first step is Euler's


def _smooth_velocity(shape=(24, 26, 22)):
    rng = np.random.default_rng(3)
    field = ndimage.gaussian_filter(rng.normal(size=(*shape, 3)), (4, 4, 4, 0))
    return jnp.asarray(2.0 * field / np.abs(field).max(), jnp.float32)


def test_exp_of_minus_v_undoes_exp_of_v():
    velocity = _smooth_velocity()
    forward, inverse = spatial.exponentiate(velocity), spatial.exponentiate(-velocity)
    rest = spatial.compose(forward, inverse)[5:-5, 5:-5, 5:-5]
    assert float(jnp.abs(rest).max()) < 0.05  # voxels, of a field of up to two


def test_compose_warps_by_the_second_first():
    u, v = _smooth_velocity(), -0.5 * _smooth_velocity()[::-1]
    ramp = spatial.identity_grid((24, 26, 22))  # linear: interpolation is exact
    twice = spatial.warp(spatial.warp(ramp, v), u)
    once = spatial.warp(ramp, spatial.compose(u, v))
    inner = (slice(4, -4),) * 3
    np.testing.assert_allclose(once[inner], twice[inner], atol=1e-3)


def test_the_jacobian_of_an_affine_map_is_its_determinant():
    matrix = np.array([[0.1, 0.2, 0.0], [-0.1, 0.05, 0.1], [0.3, 0.0, -0.2]])
    displacement, _ = _linear(matrix)
    got = spatial.jacobian_determinant(jnp.asarray(displacement))
    np.testing.assert_allclose(got, np.linalg.det(np.eye(3) + matrix), atol=1e-4)


def test_a_half_resolution_voxel_covers_two_and_its_values_double():
    matrix = np.diag([0.1, -0.2, 0.05])
    coarse, _ = _linear(matrix, (6, 7, 5))
    fine = np.asarray(spatial.resize_displacement(jnp.asarray(coarse), (12, 14, 9), (2.0,) * 3))
    at = np.arange(1, 9)  # fine voxel j lies at (j + 0.5)/2 - 0.5 of the coarse grid
    wanted = 2 * 0.1 * ((at + 0.5) / 2 - 0.5 - 2.5)
    np.testing.assert_allclose(fine[1:9, 3, 3, 0], wanted, atol=1e-5)


@pytest.mark.parametrize("length", [4, 6, 8])
def test_resizing_by_1_crops_or_repeats_the_edge(length):
    volume = np.random.default_rng(0).normal(size=(6, 7, 5, 2)).astype(np.float32)
    got = spatial.resize(jnp.asarray(volume), (length, 7, 5), (1.0, 1.0, 1.0))
    wanted = volume[np.minimum(np.arange(length), 5)]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_warping_commutes_with_an_axis_flip():
    volume, displacement = jnp.asarray(_volume()), 3 * jnp.asarray(_volume(3))
    flipped = displacement[::-1] * jnp.array([-1.0, 1.0, 1.0])[None, None, None]
    got = spatial.warp(volume[::-1], flipped)
    np.testing.assert_allclose(got, spatial.warp(volume, displacement)[::-1], atol=1e-5)


def test_other_orders_are_refused():
    with pytest.raises(ValueError, match="order"):
        spatial.sample(jnp.asarray(_volume()), jnp.zeros((1, 3)), order=3)
