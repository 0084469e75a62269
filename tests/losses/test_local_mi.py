"""Local MI, and MI in chunks, against Parzen sums of NumPy in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg.losses import mutual_information
from jaxreg.losses.mutual_information import global_mi, local_mi

SHAPE = (7, 5, 8)


def _images(shape=SHAPE):
    rng = np.random.default_rng(0)
    a, b = (ndimage.gaussian_filter(rng.uniform(size=shape), 1) for _ in range(2))
    images = [(x - x.min()) / (x.max() - x.min()) for x in (a, 0.6 * (1 - a) + 0.4 * b)]
    return [x[..., None] for x in images]


def _mask(shape=SHAPE):
    return np.random.default_rng(5).uniform(size=shape) < 0.7


def _parzen_mi(f, m, bins=32, sigma=0.5):
    """MI by an explicit double sum."""
    centres = np.arange(bins) / (bins - 1)
    k = [np.exp(-0.5 * ((x[:, None] - centres) / (sigma / (bins - 1))) ** 2) for x in (f, m)]
    k = [x / x.sum(1, keepdims=True) for x in k]
    joint = np.einsum("ni,nj->ij", *k) / len(f)
    outer = np.outer(joint.sum(1), joint.sum(0))
    keep = joint > 0
    return float(np.sum(joint[keep] * np.log(joint[keep] / outer[keep])))


def _local(f, m, mask, patch, start):
    """Mean over the voxels of the mask of their cube's MI; `start` is a corner of a cube."""
    total = 0.0
    first = [s % patch - patch for s in start]
    for corner in itertools.product(
        *(range(a, n, patch) for a, n in zip(first, mask.shape, strict=True))
    ):
        cube = tuple(slice(max(c, 0), max(c + patch, 0)) for c in corner)
        inside = mask[cube]
        if inside.any():
            a, b = (x[cube][..., 0][inside] for x in (f, m))
            total += inside.sum() * _parzen_mi(a, b, bins=8)
    return -total / mask.sum()


def _jitted(patch, *, bins=32):
    """Local MI of (seed, fixed, moved, mask), compiled."""

    def value(seed, *images):
        return local_mi(jax.random.key(seed), *images, patch=patch, bins=bins)

    return jax.jit(value)


def test_it_is_the_mean_over_the_cubes_of_some_tiling_and_the_tilings_vary():
    f, m = _images()
    mask = _mask()
    tilings = [_local(f, m, mask, 3, start) for start in itertools.product(range(3), repeat=3)]
    local = _jitted(3, bins=8)
    with jax.enable_x64(True):
        found = [float(local(seed, jnp.asarray(f), jnp.asarray(m), mask)) for seed in range(30)]
    # The tilings lie 1e-5 apart and more; float64 is exact to the floor under the logarithm.
    nearest = np.abs(np.subtract.outer(found, tilings))
    assert nearest.min(axis=1).max() < 1e-8
    assert len(set(nearest.argmin(axis=1))) > 10


def test_one_patch_has_its_mutual_information():
    f, m = (jnp.asarray(x, jnp.float32) for x in _images())
    block = np.zeros(SHAPE, bool)
    block[2:4, 1:3, 5:7] = True
    a, b = (x[..., 0][block] for x in (f, m))
    wanted = -mutual_information.mutual_information(a, b, jnp.ones(8), bins=32)
    local = _jitted(16)
    got = [float(local(seed, f, m, jnp.asarray(block))) for seed in range(15)]
    # An origin cuts the block with a chance of 1 − (15/16)³ = 0.18: most calls see it whole.
    assert np.median(got) == pytest.approx(float(wanted), abs=1e-5)


def test_it_is_symmetric_and_0_without_a_mask():
    f, m = (jnp.asarray(x, jnp.float32) for x in _images())
    local = _jitted(4)
    forth, back = (float(local(3, *pair, jnp.asarray(_mask()))) for pair in ((f, m), (m, f)))
    assert forth == pytest.approx(back, abs=1e-5)  # float32 sums in another order
    assert forth < -0.1
    assert float(local(3, f, m, jnp.zeros(SHAPE, bool))) == 0


def test_independent_images_have_no_more_than_the_bias():
    shape = (21, 17, 19)
    rng = np.random.default_rng(1)
    f, m = (jnp.asarray(rng.uniform(size=(*shape, 1)), jnp.float32) for _ in range(2))
    everywhere = jnp.ones(shape, bool)
    local = _jitted(8, bins=8)
    got = -float(local(0, f, m, everywhere))
    # A histogram's bias is (8 − 1)²/2n a cube, so (8 − 1)² · cubes / 2N in the mean; the Parzen
    # window spreads each voxel over bins, which lowers it.
    cubes = 4 * 3 * 4  # at most: those that touch the grid
    bias = 7**2 * cubes / (2 * np.prod(shape))
    assert 0 < got < bias
    assert -float(local(0, f, f, everywhere)) > 5 * bias


def test_a_batch_has_the_values_of_its_samples():
    f, m = (jnp.asarray(x, jnp.float32) for x in _images())
    local = _jitted(3)
    batch = (jnp.arange(2), jnp.stack([f, m]), jnp.stack([m, f]), jnp.stack([_mask()] * 2))
    together = jax.vmap(local)(*batch)
    apart = [local(*(x[i] for x in batch)) for i in range(2)]
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_mi_in_chunks_is_the_sum_over_all_and_so_is_its_gradient(monkeypatch):
    f, m = (jnp.asarray(x, jnp.float32) for x in _images())
    mask = jnp.asarray(_mask())

    def value(m):
        return global_mi(jax.random.key(0), f, m, mask, samples=0, bins=32)

    whole, gradient = jax.jit(jax.value_and_grad(value))(m)
    monkeypatch.setattr(mutual_information, "_CHUNK", 64)  # 280 voxels: the last one is padded
    in_chunks, chunk_gradient = jax.jit(jax.value_and_grad(lambda m: value(m)))(m)
    a, b = (np.asarray(x, np.float64)[..., 0][_mask()] for x in (f, m))
    wanted = _parzen_mi(a, b)
    assert float(in_chunks) == pytest.approx(-wanted, abs=1e-5)  # float32 sums
    assert float(whole) == pytest.approx(-wanted, abs=1e-5)
    np.testing.assert_allclose(chunk_gradient, gradient, atol=1e-5 * np.abs(gradient).max())


@pytest.mark.parametrize(("loss", "limit"), [("global", 1.5e9), ("local", 3e9)])
def test_the_gradient_at_1_mm_is_bounded_in_memory(loss, limit):
    def value(moved, fixed, mask):
        if loss == "global":
            return global_mi(jax.random.key(0), fixed, moved, mask, samples=0, bins=32)
        return local_mi(jax.random.key(0), fixed, moved, mask, patch=16, bins=32)

    image = jax.ShapeDtypeStruct((160, 192, 160, 1), jnp.float32)
    mask = jax.ShapeDtypeStruct((160, 192, 160), bool)
    compiled = jax.jit(jax.grad(value)).lower(image, image, mask).compile()
    memory = compiled.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < limit
