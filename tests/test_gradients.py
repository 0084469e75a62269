"""Gradients against central differences in float64, and finite where images are degenerate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg import spatial
from jaxreg.losses.intensity import l1, lncc, mse
from jaxreg.losses.mind import mind
from jaxreg.losses.mutual_information import global_mi, local_mi
from jaxreg.losses.ngf import ngf
from jaxreg.losses.patch_nce import patch_nce
from jaxreg.losses.regularizers import diffusion, l2

SHAPE = (7, 6, 8)
STEP = 1e-6
TOLERANCE = 1e-5
"""Relative to the largest derivative a direction can have in proportion: rounding gives 1e-16/STEP
of the value, which is 1e-8 of these derivatives; truncation grows with (STEP · 31/σ)², σ half a bin
of the MI's 32, and is as small; kinks (cells, ties) lie further off than STEP."""

SIMILARITIES = {
    "mi": lambda key, *images: global_mi(key, *images, samples=500, bins=32),
    "mi_whole": lambda key, *images: global_mi(key, *images, samples=0, bins=32),
    "local_mi": lambda key, *images: local_mi(key, *images, patch=4, bins=32),
    "ngf": lambda key, *images: ngf(*images, eta=0.05),
    "mind": lambda key, *images: mind(*images, radius=1, dilation=2),
    "lncc": lambda key, *images: lncc(*images, window=7, epsilon=1e-5),
    "mse": lambda key, *images: mse(*images),
    "l1": lambda key, *images: l1(*images),
}


def _smooth(seed):
    x = ndimage.gaussian_filter(np.random.default_rng(seed).uniform(size=SHAPE), 1)
    return ((x - x.min()) / (x.max() - x.min()))[..., None]


def _assert_derivatives(function, *arguments):
    """Each argument's gradient, along three random directions, is that of central differences."""
    with jax.enable_x64(True):
        arguments = [jnp.asarray(a, jnp.float64) for a in arguments]
        gradients = jax.jit(jax.grad(function, argnums=tuple(range(len(arguments)))))(*arguments)
        value = jax.jit(function)
        rng = np.random.default_rng(9)
        for i, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
            assert gradient.dtype == jnp.float64
            scale = float(jnp.linalg.norm(gradient.ravel()))
            assert scale > 0
            for _ in range(3):
                direction = rng.normal(size=argument.shape)
                ends = [argument + s * STEP * direction for s in (1, -1)]
                ahead, behind = (value(*arguments[:i], e, *arguments[i + 1 :]) for e in ends)
                slope = float(ahead - behind) / (2 * STEP)
                assert slope == pytest.approx(
                    float(jnp.vdot(gradient, direction)), abs=TOLERANCE * scale
                )


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_of_both_images(name):
    mask = np.random.default_rng(5).uniform(size=SHAPE) < 0.7
    _assert_derivatives(
        lambda f, m: SIMILARITIES[name](jax.random.key(0), f, m, jnp.asarray(mask)),
        _smooth(0),
        0.7 * (1 - _smooth(0)) + 0.3 * _smooth(1),
    )


def test_mind_where_half_of_the_image_is_nearly_flat_and_its_variance_clamped():
    faint = _smooth(0)
    faint[:4] *= 0.01
    _assert_derivatives(
        lambda f, m: mind(f, m, jnp.ones(SHAPE, bool), radius=1, dilation=2), faint, _smooth(1)
    )


def test_patch_nce_of_both_features():
    rng = np.random.default_rng(0)
    cell = jnp.asarray(rng.integers(0, 2, size=(10, 3)))
    _assert_derivatives(
        lambda q, k: patch_nce(q, k, cell, temperature=0.5), *rng.normal(size=(2, 10, 4))
    )


@pytest.mark.parametrize("regularizer", [diffusion, l2])
def test_regularisers(regularizer):
    _assert_derivatives(regularizer, np.random.default_rng(0).normal(size=(*SHAPE, 3)))


def _weighted(function, shape):
    """A scalar that every output of `function` enters with a weight of its own."""
    weights = np.random.default_rng(3).normal(size=shape)
    return lambda *arguments: jnp.vdot(jnp.asarray(weights), function(*arguments))


def test_sampling_by_values_and_points_inside_and_outside_of_the_grid():
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 9, size=(60, 3))
    volume = rng.uniform(size=(*SHAPE, 2))
    _assert_derivatives(_weighted(spatial.sample, (60, 2)), volume, points)


def test_warping_by_image_and_displacement():
    displacement = np.random.default_rng(0).normal(size=(*SHAPE, 3))
    _assert_derivatives(_weighted(spatial.warp, (*SHAPE, 1)), _smooth(0), displacement)


@pytest.mark.parametrize("channels", [1, 2])
def test_warping_an_odd_number_of_voxels(channels):
    """The gradient takes the points in two halves, here with one to fill up."""
    rng = np.random.default_rng(0)
    image, displacement = rng.uniform(size=(5, 3, 7, channels)), rng.normal(size=(5, 3, 7, 3))
    _assert_derivatives(_weighted(spatial.warp, (5, 3, 7, channels)), image, displacement)


def test_the_exponential_by_the_velocity():
    velocity = np.random.default_rng(0).normal(size=(*SHAPE, 3))
    _assert_derivatives(_weighted(spatial.exponentiate, (*SHAPE, 3)), velocity)


def test_resizing_by_the_displacement():
    shape, factor = (14, 11, 16), (2.0, 2.0, 2.0)
    displacement = np.random.default_rng(0).normal(size=(*SHAPE, 3))
    _assert_derivatives(
        _weighted(lambda u: spatial.resize_displacement(u, shape, factor), (*shape, 3)),
        displacement,
    )


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradients_are_finite_on_flat_patches_constant_images_and_tiny_masks(name):
    textured = jnp.asarray(_smooth(0), jnp.float32)
    constant = jnp.full((*SHAPE, 1), 0.5)
    half_flat = textured.at[:4].set(0)
    full, empty = jnp.ones(SHAPE, bool), jnp.zeros(SHAPE, bool)
    one = empty.at[3, 2, 4].set(True)
    gradient = jax.jit(jax.value_and_grad(SIMILARITIES[name], argnums=2))
    for images in (
        (textured, constant),
        (constant, textured),
        (constant, constant),
        (textured, half_flat),
        (half_flat, half_flat),
    ):
        for mask in (full, one, empty):
            value, derivative = gradient(jax.random.key(0), *images, mask)
            assert np.isfinite(value) and np.isfinite(derivative).all()
            assert mask is not empty or (np.asarray(derivative) == 0).all()


def test_nce_is_finite_where_all_features_are_equal():
    features = jnp.ones((6, 4)) / 2
    same_cell = jnp.zeros((6, 3), jnp.int32)
    for cell in (same_cell, jnp.stack([jnp.arange(6)] * 3, -1)):
        loss = functools.partial(patch_nce, temperature=0.07)
        value, derivatives = jax.value_and_grad(loss, argnums=(0, 1))(features, features, cell)
        assert np.isfinite(value) and all(np.isfinite(d).all() for d in derivatives)
