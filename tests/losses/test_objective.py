"""The objective as a whole: routing by domain, gradients to the velocity, one pair overfitted."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import NetworkConfig, OptimizerConfig, RegistrationConfig
from jaxreg.data.synthetic.phantom import phantom_subject
from jaxreg.losses import objective
from jaxreg.losses.similarity import (
    FeatureExtractor,
    Masks,
    init_projections,
    make_similarity,
)
from jaxreg.losses.soft_dice import soft_dice
from jaxreg.models.model import (
    encoder_of,
    init_encoders,
    init_params,
    velocities,
)
from jaxreg.pair import Pair
from jaxreg.registration.deformable.optimization import optimize_velocity, zero_velocity
from jaxreg.spatial import displacement_of
from jaxreg.training.registration import sample_loss
from jaxreg.training.step import TrainState, make_optimizer, make_step

SHAPE = (24, 28, 20)
DOMAINS = ("T1w", "T2w")
SEED = 7


@pytest.fixture(scope="module")
def pair():
    """T1w of one phantom and T2w of another, intensities in [0, 1]."""
    one, two = (phantom_subject(seed, shape=SHAPE, spacing_mm=8.0) for seed in (1, 2))
    images = [one.images["T1w"], two.images["T2w"]]
    masks = [jnp.asarray(s.labels > 0) for s in (one, two)]
    images = [jnp.asarray(np.clip(x / np.percentile(x, 99.5), 0, 1))[..., None] for x in images]
    return Pair(*(x.astype(jnp.float32) for x in images), *masks)


@pytest.fixture(scope="module")
def features():
    """An encoder, its random parameters and projections, another set for each domain."""
    encoder = encoder_of("fold")
    like = init_encoders(DOMAINS, "fold")
    keys = dict(zip(DOMAINS, jax.random.split(jax.random.key(3)), strict=True))
    encoders = {d: _disturbed(keys[d], like[d]) for d in DOMAINS}
    projections = init_projections(jax.random.key(4), DOMAINS, encoder.channels)
    return encoder, FeatureExtractor(encoders, projections)


def _disturbed(key, params):
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def masks_of(mask):
    """A mask in every role."""
    return Masks(mask, mask, mask.astype(jnp.float32))


def nce(features, fixed, moved, mask, domains):
    encoder, extractor = features
    config = ObjectiveConfig(loss="nce", nce_locations=64)
    similarity = make_similarity(config, domains, encoder=encoder, features=extractor)
    return similarity(jax.random.key(0), fixed, moved, masks_of(mask))[0]


def test_each_image_goes_through_the_encoder_of_its_domain_whatever_its_role(pair, features):
    mask = pair.fixed_mask
    one = nce(features, pair.fixed, pair.moving, mask, ("T1w", "T2w"))
    exchanged = nce(features, pair.moving, pair.fixed, mask, ("T2w", "T1w"))
    by_role = nce(features, pair.moving, pair.fixed, mask, ("T1w", "T2w"))
    assert float(one) == pytest.approx(float(exchanged), rel=1e-5)  # both directions are averaged
    assert abs(float(one) - float(by_role)) > 1e-3


def test_the_gradient_reaches_the_moved_image_through_its_frozen_encoder(pair, features):
    direction = jax.random.normal(jax.random.key(1), pair.moving.shape)

    @jax.jit
    def value(t):
        moved = pair.moving + t * direction
        return nce(features, pair.fixed, moved, pair.fixed_mask, DOMAINS)

    slope = float(jax.grad(value)(0.0))
    h = 3e-4  # small, for LeakyReLU's kinks; the loss's rounding of 4e-7 by 2h is below 1e-3
    numeric = (float(value(h)) - float(value(-h))) / (2 * h)
    assert abs(numeric) > 1e-2
    assert slope == pytest.approx(numeric, rel=0.05, abs=5e-3)


def test_the_gradient_reaches_every_projection_and_the_moved_features(pair, features):
    encoder, extractor = features

    def value(projections):
        replaced = extractor._replace(projections=projections)
        return nce((encoder, replaced), pair.fixed, pair.moving, pair.fixed_mask, DOMAINS)

    gradient = jax.jit(jax.grad(value))(extractor.projections)
    sizes = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda g: jnp.abs(g).max(), gradient))
    weights = [float(size) for path, size in sizes if "kernel" in str(path)]
    assert len(weights) == 2 * 3 * 3 and min(weights) > 0  # domains, scales, layers


@pytest.mark.slow
def test_the_network_overfits_one_pair_as_direct_optimisation_does(pair):
    lam = 0.5
    config = RegistrationConfig(
        network=NetworkConfig(conditioning="none", lam=lam), objective=ObjectiveConfig(loss="lncc")
    )
    similarity = make_similarity(config.objective, DOMAINS)

    @jax.jit
    def value(velocity):
        return objective.objective(
            jax.random.key(SEED), pair, velocity, jnp.float32(lam), similarity, config.objective
        )[0]

    start = zero_velocity(SHAPE)
    direct, _ = optimize_velocity(
        jax.random.key(SEED),
        pair,
        jnp.float32(lam),
        start,
        similarity,
        config.objective,
        steps=80,
        learning_rate=0.05,
    )
    steps = 100
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=20), steps)
    params = init_params(jax.random.key(0), config, None)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    step = make_step(sample_loss(config, None, spacing_mm=(1.0, 1.0, 1.0)), optimizer, mesh, seed=0)
    batch = {k: v[None] for k, v in pair._asdict().items() if v is not None}
    for _ in range(steps):
        state, _ = step(state, {}, batch)
    trained = state.params["network"]
    [(_, velocity)] = velocities(trained, pair.fixed, pair.moving, [lam], config=config.network)
    none, best, ours = (float(value(v)) for v in (start, direct, velocity[0]))
    assert (none - ours) / (none - best) > 0.9


@pytest.mark.parametrize("loss", ["mi", "lmi", "ngf", "mind", "lncc", "mse"])
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_what_is_ignored_has_no_say(pair, loss, side):
    """Whatever the image shows inside an ignore mask, the loss is the same; elsewhere it counts."""
    samples: dict[str, Any] = {"mi_samples": 0} if loss in ("mi", "nce_mi") else {}
    config = ObjectiveConfig(loss=loss, **samples)
    similarity = make_similarity(config, DOMAINS)
    lesion = jnp.zeros(SHAPE, bool).at[8:13, 9:14, 7:11].set(True)
    velocity = 0.3 * jax.random.normal(jax.random.key(2), (12, 14, 10, 3))

    @jax.jit
    def value(image, ignore):
        changed = pair._replace(**{side: image, f"{side}_ignore": ignore})
        total, _ = objective.objective(
            jax.random.key(SEED), changed, velocity, jnp.float32(0.5), similarity, config
        )
        return total

    image = getattr(pair, side)
    painted = jnp.where(lesion[..., None], 0.9, image)
    nothing = jnp.zeros_like(lesion)
    assert abs(float(value(image, nothing) - value(painted, nothing))) > 1e-4
    # MIND's clamp of flat patches knows the mean over the image; the others differ by rounding.
    tolerance = 1e-2 if loss == "mind" else 1e-5
    assert float(value(painted, lesion)) == pytest.approx(
        float(value(image, lesion)), rel=tolerance
    )
    elsewhere = jnp.zeros(SHAPE, bool).at[8:13, 20:24, 7:11].set(True)
    painted = jnp.where(elsewhere[..., None], 0.9, image)
    assert abs(float(value(image, lesion) - value(painted, lesion))) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_loss_within_one_contrast_sees_the_twin_and_not_the_moved_image(pair, symmetric):
    velocity = 0.5 * jax.random.normal(jax.random.key(2), (12, 14, 10, 3))
    twin = jnp.flip(pair.fixed, axis=1)

    def value(loss, pair):
        config = ObjectiveConfig(loss=loss, symmetric=symmetric)
        similarity = make_similarity(config, DOMAINS)
        return float(
            objective.objective(
                jax.random.key(0), pair, velocity, jnp.float32(0.3), similarity, config
            )[0]
        )

    seen = value("intra_lncc", pair._replace(moving_in_fixed_contrast=twin))
    assert seen == pytest.approx(value("lncc", pair._replace(moving=twin)), rel=1e-6)
    assert seen == value(
        "intra_lncc", pair._replace(moving_in_fixed_contrast=twin, moving=1 - pair.moving)
    )


def test_symmetric_averages_both_ends(pair):
    config = ObjectiveConfig(loss="lncc", symmetric=True)
    similarity = make_similarity(config, DOMAINS)
    velocity = 0.5 * jax.random.normal(jax.random.key(2), (12, 14, 10, 3))
    forth, back = (
        objective.objective(jax.random.key(SEED), p, v, jnp.float32(0.3), similarity, config)[0]
        for p, v in ((pair, velocity), (pair.exchanged(), -velocity))
    )
    assert float(forth) == pytest.approx(float(back), rel=1e-4)  # float32 sums
    one_sided = dataclasses.replace(config, symmetric=False)
    here, there = (
        objective.objective(jax.random.key(SEED), p, v, jnp.float32(0.3), similarity, one_sided)[0]
        for p, v in ((pair, velocity), (pair.exchanged(), -velocity))
    )
    assert abs(float(here - there)) > 1e-3
    assert float(forth) == pytest.approx(0.5 * float(here + there), rel=1e-4)


def test_the_overlap_of_labels_begins_where_it_is_told(pair):
    random = np.random.default_rng(3)
    labels = [jnp.asarray(random.integers(0, 3, SHAPE), jnp.uint8) for _ in range(2)]
    labelled = pair._replace(fixed_labels=labels[0], moving_labels=labels[1])
    config = ObjectiveConfig(loss="mse", label_weight=1.0)
    similarity = make_similarity(config, DOMAINS)
    velocity = 0.3 * jax.random.normal(jax.random.key(2), (12, 14, 10, 3))
    displacement = displacement_of(velocity, SHAPE, squarings=config.squarings)
    for start in ((0, 0, 0), (1, 0, 1)):
        _, terms = objective.objective(
            jax.random.key(SEED),
            labelled,
            velocity,
            jnp.float32(0.3),
            similarity,
            config,
            start=start,
        )
        wanted = soft_dice(labels[0], labels[1], displacement, start=start)
        np.testing.assert_allclose(terms["label_dice"], wanted, rtol=1e-6)


def test_symmetric_averages_the_terms_too(pair):
    def similarity(key, fixed, moved, masks, *, start):
        return jnp.mean(moved), {"brightness": jnp.mean(moved) - 2 * jnp.mean(fixed)}

    config = ObjectiveConfig(loss="lncc", symmetric=True)
    velocity = 0.5 * jax.random.normal(jax.random.key(2), (12, 14, 10, 3))
    _, terms = objective.objective(
        jax.random.key(SEED), pair, velocity, jnp.float32(0.3), similarity, config
    )
    forth, back = (
        objective.moved_and_masks(p, v, config)[0].mean()
        for p, v in ((pair, velocity), (pair.exchanged(), -velocity))
    )
    wanted = 0.5 * (forth - 2 * pair.fixed.mean() + pair.moving.mean() - 2 * back)
    assert float(terms["brightness"]) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize(("fraction", "low", "high"), [(0.0, 0, 0), (0.4, 0.3, 0.5), (1.0, 1, 1)])
def test_lambda_lies_on_the_ends_in_the_share_asked_for(fraction, low, high):
    keys = jax.random.split(jax.random.key(0), 500)
    lams = np.asarray(jax.vmap(lambda k: objective.draw_lam(k, fraction))(keys))
    assert lams.min() >= 0 and lams.max() <= 1
    assert low <= np.isin(lams, [0, 1]).mean() <= high  # ± 4.5 standard deviations
    if fraction < 1:
        assert 0.4 < lams[~np.isin(lams, [0, 1])].mean() < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("taps", ["0", "0,2", "2,1"])
def test_only_the_tapped_scales_are_compared(pair, features, taps):
    encoder, extractor = features
    config = ObjectiveConfig(loss="nce", nce_locations=32, taps=taps)

    def value(projections):
        replaced = extractor._replace(projections=projections)
        similarity = make_similarity(config, DOMAINS, encoder=encoder, features=replaced)
        masks = masks_of(pair.fixed_mask)
        return similarity(jax.random.key(0), pair.fixed, pair.moving, masks)[0]

    gradient = jax.jit(jax.grad(value))(extractor.projections)
    for scale in range(3):
        size = float(jnp.abs(gradient["T2w"][f"scale{scale}"]["dense0"]["kernel"]).max())
        assert (size > 0) == (str(scale) in taps)


def test_nce_mi_is_a_tenth_of_nce_and_nine_tenths_of_mi(pair, features):
    encoder, extractor = features
    config = ObjectiveConfig(loss="nce_mi", nce_locations=32, mi_samples=500)
    similarity = make_similarity(config, DOMAINS, encoder=encoder, features=extractor)
    masks = masks_of(pair.fixed_mask)
    total, terms = similarity(jax.random.key(0), pair.fixed, pair.moving, masks)
    assert abs(float(terms["nce"])) > 0.1 and abs(float(terms["mi"])) > 0.01
    wanted = 0.1 * float(terms["nce"]) + 0.9 * float(terms["mi"])
    assert float(total) == pytest.approx(wanted, rel=1e-5)
