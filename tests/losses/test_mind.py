"""MIND-SSC against a loop over voxels in float64, impulses by hand, and its invariances."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg.losses.mind import PAIRS, mind, mind_ssc

SHAPE = (7, 6, 8)
SIX = [np.array(o) for o in itertools.product((-1, 0, 1), repeat=3) if np.abs(o).sum() == 1]

_mind = functools.partial(mind, radius=1, dilation=2)


def _image(seed=0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).uniform(size=SHAPE), 0.7)


def _array(image):
    return jnp.asarray(image[..., None], jnp.float32)


def _loop(image, radius, dilation):
    """The descriptor voxel by voxel, float64; channels in the order of PAIRS."""
    reach = dilation + radius
    padded = np.pad(image, reach, mode="edge")
    offsets = list(itertools.product(range(-radius, radius + 1), repeat=3))
    distance = np.zeros((*SHAPE, 12))
    for voxel in np.ndindex(*SHAPE):
        for c, pair in enumerate(PAIRS):
            a, b = (np.array(voxel) + reach + dilation * np.array(o) for o in pair)
            squares = [(padded[tuple(a + o)] - padded[tuple(b + o)]) ** 2 for o in offsets]
            distance[voxel][c] = np.mean(squares)
    distance -= distance.min(-1, keepdims=True)
    variance = distance.mean(-1, keepdims=True)
    variance = np.clip(variance, 1e-3 * variance.mean(), 1e3 * variance.mean())
    return np.exp(-distance / variance)


def test_the_channels_are_the_pairs_of_neighbours_that_are_root_2_apart():
    wanted = {
        frozenset((tuple(a), tuple(b)))
        for a, b in itertools.combinations(SIX, 2)
        if np.sum((a - b) ** 2) == 2
    }
    assert len(PAIRS) == len(wanted) == 12
    assert {frozenset(pair) for pair in PAIRS} == wanted


@pytest.mark.parametrize(("radius", "dilation"), [(1, 2), (2, 1)])
def test_the_descriptor_is_that_of_a_loop_over_voxels(radius, dilation):
    got = jax.jit(mind_ssc, static_argnames=("radius", "dilation"))(
        _array(_image()), radius=radius, dilation=dilation
    )
    wanted = _loop(_image(), radius, dilation)
    # A slope of at most 12 in distance/variance, whose float32 error is near 1e-6 relative.
    np.testing.assert_allclose(got, wanted, atol=5e-5)


def test_an_impulse_is_seen_by_the_four_pairs_that_look_at_it():
    # Patches of one voxel: from c − 2a only the pairs with neighbour a differ, by 1, so that the
    # variance is 4/12 and their descriptor exp(−3); the eight others keep 1.
    shape = (11, 12, 13)
    centre = np.array([5, 5, 6])
    impulse = np.zeros(shape)
    impulse[tuple(centre)] = 1
    got = np.asarray(mind_ssc(_array(impulse), radius=0, dilation=2))
    for neighbour in SIX:
        wanted = [np.exp(-3) if tuple(neighbour) in pair else 1 for pair in PAIRS]
        np.testing.assert_allclose(got[tuple(centre - 2 * neighbour)], wanted, rtol=1e-6)
    assert (got[0, 0, 0] == 1).all()


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.3), (-0.4, 0.9), (-1, 1)])
def test_a_linear_map_of_the_intensities_changes_nothing(scale, shift):
    image = _image()
    mapped = scale * image + shift
    got, wanted = (np.asarray(mind_ssc(_array(x), radius=1, dilation=2)) for x in (mapped, image))
    np.testing.assert_allclose(got, wanted, atol=1e-4)  # rounding of the mapped image
    everywhere = jnp.ones(SHAPE, bool)
    assert float(_mind(_array(image), _array(mapped), everywhere)) < 1e-9
    assert float(_mind(_array(image), _array(_image(1)), everywhere)) > 1e-2


def test_mind_is_the_mean_squared_difference_over_mask_and_channels():
    mask = np.random.default_rng(2).uniform(size=SHAPE) < 0.5
    f, m = _image(), _image(1)
    got = jax.jit(_mind)(_array(f), _array(m), jnp.asarray(mask))
    wanted = np.mean(((_loop(f, 1, 2) - _loop(m, 1, 2)) ** 2)[mask])
    assert float(got) == pytest.approx(wanted, rel=1e-4)
    assert float(_mind(_array(f), _array(m), jnp.zeros(SHAPE, bool))) == 0


def test_the_descriptor_of_a_constant_image_is_1():
    assert (np.asarray(mind_ssc(jnp.full((*SHAPE, 1), 0.3), radius=1, dilation=2)) == 1).all()


def test_the_gradient_at_1_mm_takes_less_than_3_gb():
    image = jax.ShapeDtypeStruct((160, 192, 160, 1), jnp.float32)
    mask = jax.ShapeDtypeStruct((160, 192, 160), bool)
    compiled = jax.jit(jax.grad(_mind, argnums=1)).lower(image, image, mask).compile()
    memory = compiled.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < 3e9
