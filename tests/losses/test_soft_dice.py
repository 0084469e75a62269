"""The overlap of warped label maps against SciPy, its gradient, its way into training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.data.cohort import read_cohort
from jaxreg.data.pipeline import pair_batches
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.losses.objective import objective
from jaxreg.losses.similarity import make_similarity
from jaxreg.losses.soft_dice import soft_dice
from jaxreg.pair import Pair
from jaxreg.training.augmentation.flip import mirrored as flip
from jaxreg.training.subjects import labelled_subjects

SHAPE = (9, 8, 7)


def _labels():
    """Two maps of labels 0 to 2, the first with a 7 besides, and a displacement."""
    rng = np.random.default_rng(3)
    fixed, moving = rng.integers(0, 3, (2, *SHAPE)).astype(np.uint8)
    fixed[1, 2, 1] = 7
    displacement = rng.uniform(-1.5, 1.5, (*SHAPE, 3)).astype(np.float32)
    return jnp.asarray(fixed), jnp.asarray(moving), jnp.asarray(displacement)


def test_soft_dice_is_that_of_linearly_warped_maps_over_the_labels_of_both():
    fixed, moving, displacement = _labels()
    start = (1, 0, 1)
    part = np.ix_(*(s + 2 * np.arange(n // 2) for s, n in zip(start, SHAPE, strict=True)))
    points = np.indices(SHAPE) + np.moveaxis(np.asarray(displacement), -1, 0)
    wanted = []
    for label in (1, 2):
        ones = np.asarray(moving == label, np.float64)
        moved = ndimage.map_coordinates(ones, points, order=1, mode="nearest")[part]
        same = np.asarray(fixed == label)[part]
        wanted.append(2 * (same * moved).sum() / (same.sum() + moved.sum()))
    got = jax.jit(soft_dice)(fixed, moving, displacement, start=start)
    assert float(got) == pytest.approx(np.mean(wanted), abs=1e-5)


def test_soft_dice_of_a_map_with_itself_is_one_and_without_labels_nothing():
    fixed, _, displacement = _labels()
    assert float(soft_dice(fixed, fixed, jnp.zeros((*SHAPE, 3)))) == pytest.approx(1)
    nothing = jnp.zeros_like(fixed)
    value, slope = jax.value_and_grad(lambda u: soft_dice(fixed, nothing, u))(displacement)
    assert value == 0 and not slope.any()


def test_the_gradient_of_soft_dice_is_the_numeric_one():
    fixed, moving, displacement = _labels()

    @jax.jit
    def value(u):
        return soft_dice(fixed, moving, u, stride=1)

    slope = jax.grad(value)(displacement)
    step = 1e-3 * slope / jnp.abs(slope).max()  # uphill, where the difference is above rounding
    numeric = float(value(displacement + step) - value(displacement - step)) / 2
    wanted = float(jnp.sum(slope * step))
    assert wanted == pytest.approx(numeric, rel=0.05)  # a few points change their corners


@pytest.mark.slow
def test_the_objective_adds_the_weighted_overlap_to_the_similarity():
    fixed, moving, _ = _labels()
    images = jax.random.uniform(jax.random.key(0), (2, *SHAPE, 1))
    mask = jnp.ones(SHAPE, bool)
    pair = Pair(images[0], images[1], mask, mask)
    velocity = jax.random.normal(jax.random.key(1), (5, 4, 4, 3))
    config = ObjectiveConfig(loss="mse", label_weight=3.0)
    similarity = make_similarity(config, ("T1w", "T2w"))

    def total(pair):
        return objective(jax.random.key(2), pair, velocity, jnp.float32(0.25), similarity, config)

    (plain, _), (with_labels, terms) = (
        total(pair),
        total(pair._replace(fixed_labels=fixed, moving_labels=moving)),
    )
    wanted = 0.75 * 3 * (1 - terms["label_dice"])
    assert 0 < terms["label_dice"] < 1
    assert float(with_labels - plain) == pytest.approx(float(wanted), rel=1e-4)


def test_voxels_that_do_not_count_have_no_say_in_the_overlap():
    fixed, moving, displacement = _labels()
    counts = jnp.asarray(np.random.default_rng(5).random(SHAPE) > 0.4)
    shuffled = jnp.where(counts, fixed, (fixed + 1) % 3)  # another anatomy where nothing counts
    one, other = (
        soft_dice(f, moving, displacement, counts=counts, stride=1) for f in (fixed, shuffled)
    )
    assert float(one) == pytest.approx(float(other), abs=1e-6)
    assert float(soft_dice(fixed, moving, displacement, stride=1)) != pytest.approx(float(one))


@pytest.mark.parametrize("unlabelled", ["fixed_labels", "moving_labels"])
def test_a_pair_without_labels_of_both_adds_nothing(unlabelled):
    fixed, moving, _ = _labels()
    rng = np.random.default_rng(0)
    one, other = jnp.asarray(rng.random((2, *SHAPE, 1)), jnp.float32)
    mask = jnp.ones(SHAPE, bool)
    velocity = jnp.asarray(rng.normal(0, 0.3, (5, 4, 4, 3)), jnp.float32)
    config = ObjectiveConfig(loss="mse", label_weight=3.0)
    similarity = make_similarity(config, ("T1w", "T2w"))
    pair = Pair(one, other, mask, mask)

    def total(pair):
        return objective(jax.random.key(2), pair, velocity, jnp.float32(0.25), similarity, config)

    half = pair._replace(fixed_labels=fixed, moving_labels=moving)
    half = half._replace(**{unlabelled: jnp.zeros_like(fixed)})
    assert float(total(half)[0]) == pytest.approx(float(total(pair)[0]), rel=1e-6)


def test_a_lesion_has_no_say_in_the_overlap_either():
    fixed, moving, _ = _labels()
    rng = np.random.default_rng(0)
    one, other = jnp.asarray(rng.random((2, *SHAPE, 1)), jnp.float32)
    mask = jnp.ones(SHAPE, bool)
    lesion = jnp.zeros(SHAPE, bool).at[2:6, 2:6, 2:6].set(True)
    config = ObjectiveConfig(loss="mse", label_weight=3.0)
    similarity = make_similarity(config, ("T1w", "T2w"))
    pair = Pair(one, other, mask, mask, lesion, fixed_labels=fixed, moving_labels=moving)
    ill = jnp.where(lesion, (fixed + 1) % 3, fixed)

    def total(pair):
        still = jnp.zeros((5, 4, 4, 3))
        return objective(jax.random.key(2), pair, still, jnp.float32(0.25), similarity, config)[0]

    changed = pair._replace(fixed_labels=ill)
    assert float(total(changed)) == pytest.approx(float(total(pair)), rel=1e-6)
    without = [p._replace(fixed_ignore=None) for p in (pair, changed)]
    assert float(total(without[0])) != pytest.approx(float(total(without[1])), rel=1e-6)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "cohort"
    write_phantom_cohort(folder, shape=(16, 16, 16), spacing_mm=12.0, subjects={"train": 3})
    return read_cohort(folder)


def test_batches_number_the_structures_and_flip_them_with_the_images(cohort):
    subjects = cohort.members("train", "T2w")
    keys = [(p, kind) for p in subjects for kind in ("T1w", "T2w", "dseg")]
    volumes = Volumes(cohort, keys)
    batches = pair_batches(
        volumes,
        ("T1w", "T2w"),
        subjects,
        subjects,
        seed=0,
        batch_size=8,
        flip=flip,
        labels=True,
    )
    batch = next(batches)
    structures = sorted(cohort.structures)
    mirrored = 0
    for row in range(8):
        for role, domain in (("fixed", "T1w"), ("moving", "T2w")):
            subject = subjects[batch[f"{role}_index"][row]]
            image, labels = volumes.scan(subject, domain).image, volumes.labels(subject)
            if not np.array_equal(image, batch[role][row]):
                image, labels = image[::-1], labels[::-1]
                mirrored += 1
            np.testing.assert_array_equal(image, batch[role][row])
            numbers = sum((labels == s) * (i + 1) for i, s in enumerate(structures))
            np.testing.assert_array_equal(numbers, batch[f"{role}_labels"][row])
    assert 0 < mirrored < 16


def test_labels_are_asked_for_where_there_are_none(cohort):
    unscored = dataclasses.replace(cohort, structures={})
    with pytest.raises(InputError, match="--label-weight"):
        labelled_subjects(unscored, set(cohort.participants))
