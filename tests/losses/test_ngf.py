"""Normalised gradient fields against ramps worked out by hand and NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg.losses.ngf import ngf

SHAPE = (7, 9, 8)
EVERYWHERE = jnp.ones(SHAPE, bool)


def _ramp(*slope):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    return jnp.asarray(grid @ np.array(slope, float), jnp.float32)[..., None]


def _images():
    rng = np.random.default_rng(0)
    return [ndimage.gaussian_filter(rng.uniform(size=SHAPE), 1) for _ in range(2)]


def _ngf_terms(f, m, eta):
    """1 − ⟨n(∇f), n(∇m)⟩² of each voxel, float64, unit vectors first and product after."""
    n = [np.stack(np.gradient(x), -1) for x in (f, m)]
    n = [g / np.sqrt((g**2).sum(-1, keepdims=True) + eta**2) for g in n]
    return 1 - np.einsum("xyzc,xyzc->xyz", *n) ** 2


@pytest.mark.parametrize(
    ("slope", "wanted"), [((1, 1, 1), 0), ((1, -1, 0), 1), ((-1, -1, -1), 0), ((-3, -3, -3), 0)]
)
def test_ramps_give_0_1_0(slope, wanted):
    got = jax.jit(functools.partial(ngf, eta=0.01))(_ramp(1, 1, 1), _ramp(*slope), EVERYWHERE)
    # η of 0.01 against slopes of √3: 1 − 1/(1 + η²/3)² = 7e-5.
    assert float(got) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("eta", [0.01, 0.1])
def test_it_is_the_mean_over_the_mask_of_numpys_gradients(eta):
    f, m = _images()
    mask = np.random.default_rng(1).uniform(size=SHAPE) < 0.6
    got = jax.jit(ngf, static_argnames="eta")(
        *(jnp.asarray(x[..., None], jnp.float32) for x in (f, m)), jnp.asarray(mask), eta=eta
    )
    wanted = _ngf_terms(f, m, eta)[mask].mean()
    assert float(got) == pytest.approx(wanted, abs=1e-5)  # float32 differences of values near 0.5


def test_one_voxel_and_no_voxel():
    f, m = _images()
    a, b = (jnp.asarray(x[..., None], jnp.float32) for x in (f, m))
    one = jnp.zeros(SHAPE, bool).at[0, 8, 3].set(True)
    wanted = _ngf_terms(f, m, 0.01)[0, 8, 3]
    assert float(ngf(a, b, one, eta=0.01)) == pytest.approx(wanted, abs=1e-5)
    assert float(ngf(a, b, jnp.zeros(SHAPE, bool), eta=0.05)) == 0


def test_a_flat_image_has_no_edges_in_common():
    f = jnp.asarray(_images()[0][..., None], jnp.float32)
    assert float(ngf(f, jnp.full((*SHAPE, 1), 0.3), EVERYWHERE, eta=0.05)) == 1
