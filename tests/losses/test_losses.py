"""Each loss against an oracle that is not its own code."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg.configuration.objective import LOSS_SPECS, ObjectiveConfig
from jaxreg.losses import (
    intensity,
    mutual_information,
    objective,
    patch_nce,
    regularizers,
    sampling,
)
from jaxreg.losses.similarity import SIMILARITIES, Masks, make_similarity
from jaxreg.pair import Pair

SHAPE = (11, 9, 13)


def _images(seed=0):
    rng = np.random.default_rng(seed)
    a, b = (ndimage.gaussian_filter(rng.uniform(size=SHAPE), 1) for _ in range(2))
    mixed = 0.6 * (1 - a) + 0.4 * b
    scale = [(x - x.min()) / (x.max() - x.min()) for x in (a, mixed)]
    return [jnp.asarray(x[..., None], jnp.float32) for x in scale]


def _mask():
    return jnp.asarray(np.random.default_rng(5).uniform(size=SHAPE) < 0.7)


def _parzen_mi(f, m, bins, sigma):
    """MI by an explicit double sum in float64."""
    centres = np.arange(bins) / (bins - 1)
    k = [np.exp(-0.5 * ((x[:, None] - centres) / (sigma / (bins - 1))) ** 2) for x in (f, m)]
    k = [x / x.sum(1, keepdims=True) for x in k]
    joint = np.einsum("ni,nj->ij", *k) / len(f)
    outer = np.outer(joint.sum(1), joint.sum(0))
    keep = joint > 0
    return float(np.sum(joint[keep] * np.log(joint[keep] / outer[keep])))


def test_global_mi_is_the_parzen_sum_over_the_mask_and_symmetric():
    f, m = _images()
    mask = _mask()
    key = jax.random.key(0)
    got = jax.jit(lambda f, m: mutual_information.global_mi(key, f, m, mask, samples=0, bins=32))(
        f, m
    )
    inside = np.asarray(mask)
    a, b = (np.asarray(x, np.float64)[..., 0][inside] for x in (f, m))
    assert float(-got) == pytest.approx(_parzen_mi(a, b, 32, 0.5), abs=2e-4)  # float32 sums
    swapped = mutual_information.global_mi(key, m, f, mask, samples=0, bins=32)
    assert float(swapped) == pytest.approx(float(got), abs=1e-5)


def test_mi_of_identical_images_on_bin_centres_is_their_entropy_and_of_independent_ones_0():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 8, size=20_000)
    values = jnp.asarray(counts / 7, jnp.float32)
    weight = jnp.ones(len(counts))
    got = mutual_information.mutual_information(values, values, weight, bins=8, sigma=0.05)
    p = np.bincount(counts, minlength=8) / len(counts)
    assert float(got) == pytest.approx(-np.sum(p * np.log(p)), abs=1e-3)
    other = jnp.asarray(rng.integers(0, 8, size=20_000) / 7, jnp.float32)
    apart = mutual_information.mutual_information(values, other, weight, bins=8, sigma=0.05)
    assert float(apart) < 5e-3  # bias of a histogram: (8 - 1)^2 / (2 n)


def test_sampled_mi_is_near_the_whole():
    f, m = _images()
    mask = _mask()
    whole = mutual_information.global_mi(jax.random.key(0), f, m, mask, samples=0, bins=32)
    drawn = mutual_information.global_mi(jax.random.key(1), f, m, mask, samples=20_000, bins=32)
    assert float(drawn) == pytest.approx(float(whole), abs=0.03)


def test_lncc_is_that_of_scipys_uniform_filter():
    f, m = _images()
    mask = _mask()

    def mean(x):
        ones = ndimage.uniform_filter(np.ones(SHAPE), 7, mode="constant")
        return ndimage.uniform_filter(x, 7, mode="constant") / ones

    a, b = (np.asarray(x, np.float64)[..., 0] for x in (f, m))
    covariance = mean(a * b) - mean(a) * mean(b)
    product = (mean(a * a) - mean(a) ** 2) * (mean(b * b) - mean(b) ** 2)
    wanted = 1 - np.mean((covariance**2 / (product + 1e-5))[np.asarray(mask)])
    value = functools.partial(intensity.lncc, window=7, epsilon=1e-5)
    assert float(jax.jit(value)(f, m, mask)) == pytest.approx(wanted, abs=1e-4)


def test_weighted_lncc_is_that_of_scipys_uniform_filter_and_does_not_see_voxels_of_weight_0():
    f, m = _images()
    mask, weight = _mask(), np.random.default_rng(4).random(SHAPE, np.float32)
    weight[:5] = 0

    def mean(x):
        total = ndimage.uniform_filter(weight.astype(np.float64), 7, mode="constant")
        return ndimage.uniform_filter(x * weight, 7, mode="constant") / np.maximum(total, 1e-9)

    a, b = (np.asarray(x, np.float64)[..., 0] for x in (f, m))
    covariance = mean(a * b) - mean(a) * mean(b)
    product = (mean(a * a) - mean(a) ** 2) * (mean(b * b) - mean(b) ** 2)
    wanted = 1 - np.mean((weight * covariance**2 / (product + 1e-5))[np.asarray(mask)])
    lncc = jax.jit(functools.partial(intensity.lncc, window=7, epsilon=1e-5))
    value = lncc(f, m, mask, weight=jnp.asarray(weight))
    assert float(value) == pytest.approx(wanted, abs=1e-4)
    painted = lncc(f.at[:5].set(0.9), m, mask, weight=jnp.asarray(weight))
    assert float(painted) == pytest.approx(float(value), abs=1e-5)


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 0, 1)])
def test_windows_of_every_second_voxel_are_those_of_all_voxels_taken_there(start):
    (f, m), weight = _images(), jnp.asarray(np.random.default_rng(8).uniform(size=SHAPE))
    settings = {"weight": weight.astype(jnp.float32), "window": 5, "epsilon": 1e-5}
    squared = functools.partial(intensity.squared_correlation, **settings)
    some = jax.jit(lambda start: squared(f, m, stride=2, start=start))(start)
    x, y, z = (slice(s, s + 2 * (n // 2), 2) for s, n in zip(start, SHAPE, strict=True))
    np.testing.assert_allclose(some, squared(f, m)[x, y, z], atol=1e-5)  # float32 variances
    lncc = intensity.lncc(f, m, _mask(), **settings, stride=2, start=start)
    mask, products = np.asarray(_mask())[x, y, z], np.asarray(weight)[x, y, z] * np.asarray(some)
    assert float(lncc) == pytest.approx(1 - products[mask].mean(), abs=1e-5)


def test_the_stride_of_lncc_draws_another_start_in_each_step():
    f, m = _images()
    config = ObjectiveConfig(loss="lncc", lncc_stride=2)
    masks = Masks(_mask(), _mask(), jnp.ones(SHAPE))
    similarity = jax.jit(make_similarity(config, ("fixed", "moving")))
    values = {round(float(similarity(jax.random.key(i), f, m, masks)[0]), 5) for i in range(16)}
    assert 3 < len(values) <= 8


def test_eight_steps_of_an_optimisation_see_each_voxel_once():
    shape, begin = (6, 8, 4), 3
    seen = np.zeros(shape, int)
    starts = [jax.jit(sampling.start_of)(jnp.int32(step)) for step in range(begin, begin + 8)]
    for x, y, z in starts:
        seen[x::2, y::2, z::2] += 1
    assert (seen == 1).all()
    assert tuple(map(int, sampling.start_of(begin + 8))) == tuple(map(int, starts[0]))
    for step in range(0, 8, 2):
        here, there = (np.array(sampling.start_of(s)) for s in (step, step + 1))
        assert (here + there == 1).all(), "a step and the next one see opposite voxels"


def test_a_start_that_is_given_leaves_nothing_to_the_key():
    f, m = _images()
    config = ObjectiveConfig(loss="lncc", lncc_stride=2)
    masks = Masks(_mask(), _mask(), jnp.ones(SHAPE))
    similarity = make_similarity(config, ("fixed", "moving"))
    for start in ((0, 0, 0), (1, 0, 1)):
        wanted = intensity.lncc(
            f,
            m,
            _mask(),
            window=config.lncc_window,
            epsilon=config.lncc_epsilon,
            stride=2,
            start=start,
        )
        for seed in range(3):
            value, _ = similarity(jax.random.key(seed), f, m, masks, start=start)
            assert float(value) == float(wanted)


def test_lncc_needs_no_common_contrast():
    f = _images()[0]
    everywhere = jnp.ones(SHAPE, bool)
    inverted = intensity.lncc(f, 1 - f, everywhere, window=7, epsilon=1e-12)
    assert float(inverted) == pytest.approx(0, abs=2e-3)  # float32 variances


def test_nce_of_equal_features_is_log_n_and_of_orthonormal_ones_the_closed_form():
    n, tau = 8, 0.07
    cell = jnp.stack([jnp.arange(n)] * 3, -1)
    equal = jnp.broadcast_to(jnp.eye(n)[:1], (n, n))
    assert float(patch_nce.patch_nce(equal, equal, cell, temperature=0.07)) == pytest.approx(
        np.log(n), abs=1e-5
    )
    got = patch_nce.patch_nce(jnp.eye(n), jnp.eye(n), cell, temperature=tau)
    wanted = np.log1p((n - 1) * np.exp(-1 / tau))
    assert float(got) == pytest.approx(wanted, abs=1e-6)


def test_locations_of_one_cell_are_not_negatives_of_each_other():
    cell = jnp.array([[0, 0, 0], [0, 0, 0], [1, 0, 0]])
    equal = jnp.ones((3, 1))
    # The first two see themselves and the third; the third sees all three.
    wanted = (2 * np.log(2) + np.log(3)) / 3
    assert float(patch_nce.patch_nce(equal, equal, cell, temperature=0.07)) == pytest.approx(
        wanted, abs=1e-5
    )


def test_regularisers_by_hand_and_a_constant_velocity_costs_at_the_border():
    velocity = jnp.zeros((2, 3, 4, 3)).at[..., 0].set(2.0)
    assert float(regularizers.l2(velocity)) == pytest.approx(4.0)
    faces = 2 * (3 * 4 + 2 * 4 + 2 * 3)
    assert float(regularizers.diffusion(velocity)) == pytest.approx(faces * 4 / 24)


def test_drawn_voxels_lie_in_the_mask_and_cover_it_evenly():
    mask = np.asarray(_mask())
    voxels = np.asarray(sampling.draw_voxels(jax.random.key(0), jnp.asarray(mask), 50_000))
    assert mask[tuple(voxels.T)].all()
    counts = np.zeros(SHAPE)
    np.add.at(counts, tuple(voxels.T), 1)
    expected = 50_000 / mask.sum()
    assert abs(counts[mask] - expected).max() < 6 * np.sqrt(expected)


def test_one_voxel_and_no_voxel_can_be_drawn_from():
    one = jnp.zeros(SHAPE, bool).at[3, 4, 5].set(True)
    voxels = sampling.draw_voxels(jax.random.key(0), one, 7)
    assert (np.asarray(voxels) == [3, 4, 5]).all()
    empty = sampling.draw_voxels(jax.random.key(0), jnp.zeros(SHAPE, bool), 7)
    assert ((np.asarray(empty) >= 0) & (np.asarray(empty) < SHAPE)).all()


@pytest.mark.parametrize("loss", ["mi", "lncc", "l1", "mse"])
@pytest.mark.parametrize("mask", ["one", "empty", "full"])
def test_gradients_are_finite_on_constant_images_and_tiny_masks(loss, mask):
    masks = {"full": jnp.ones(SHAPE, bool), "empty": jnp.zeros(SHAPE, bool)}
    masks["one"] = masks["empty"].at[5, 5, 5].set(True)

    def value(moved):
        fixed = jnp.full((*SHAPE, 1), 0.5)
        if loss == "mi":
            return mutual_information.global_mi(
                jax.random.key(0), fixed, moved, masks[mask], samples=100, bins=32
            )
        settings = {"window": 7, "epsilon": 1e-5} if loss == "lncc" else {}
        return getattr(intensity, loss)(fixed, moved, masks[mask], **settings)

    total, gradient = jax.jit(jax.value_and_grad(value))(jnp.full((*SHAPE, 1), 0.25))
    assert np.isfinite(total) and np.isfinite(gradient).all()


def test_every_loss_has_the_scale_that_the_docs_say_and_the_papers_are_1():
    page = (Path(__file__).resolve().parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    scales = {loss: spec.scale for loss, spec in LOSS_SPECS.items()}
    assert {loss: float(scale) for loss, scale in rows} == scales
    assert scales["nce_mi"] == scales["mi"] == 1


def test_every_loss_of_the_table_has_its_function():
    assert list(SIMILARITIES) == list(LOSS_SPECS)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_lambda_weighs_smoothness_against_similarity(lam):
    f, m = _images()
    pair = Pair(f, m, _mask(), _mask())
    config = ObjectiveConfig(loss="lncc")
    similarity = make_similarity(config, ("T1w", "T2w"))
    velocity = 0.1 * jax.random.normal(jax.random.key(1), (6, 5, 7, 3))
    total, terms = objective.objective(
        jax.random.key(0), pair, velocity, jnp.float32(lam), similarity, config
    )
    wanted = (1 - lam) * 8 * terms["similarity"] + lam * terms["roughness"]
    assert float(total) == pytest.approx(float(wanted), rel=1e-5)
    assert float(terms["roughness"]) == pytest.approx(float(regularizers.diffusion(velocity)))
