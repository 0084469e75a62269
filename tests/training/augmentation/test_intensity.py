"""What the network is shown in training: varied, made and cut images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import convolve1d

from jaxreg.configuration.augmentation import AugmentationConfig
from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import CohortConfig, RegistrationConfig, SessionConfig
from jaxreg.data.cohort import read_cohort
from jaxreg.data.prepare.freesurfer_labels import HINDBRAIN
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.errors import InputError
from jaxreg.training.augmentation.intensity import (
    augment,
    blurred,
    synthesize,
    vary_intensities,
)
from jaxreg.training.registration import registration_task
from jaxreg.training.subjects import hindbrain_of


def test_varied_intensities_stay_in_range_keep_the_background_and_differ_each_time():
    image = jax.random.uniform(jax.random.key(0), (12, 10, 8, 1))
    mask = jnp.arange(12)[:, None, None] < jnp.full((12, 10, 8), 9)
    seen = [vary_intensities(jax.random.key(k), image, mask) for k in (1, 2)]
    for each in seen:
        assert each.shape == image.shape and float(each.min()) >= 0 and float(each.max()) <= 1
        assert not each[9:].any()
        inside = np.asarray(image[:9]).ravel(), np.asarray(each[:9]).ravel()
        assert np.corrcoef(*inside)[0, 1] > 0.8  # the same anatomy
    assert float(jnp.abs(seen[0] - seen[1]).mean()) > 0.01
    assert not RegistrationConfig().augmentation.vary


def anatomy():
    """Labels 0 to 3 in slabs across x, and a mask that leaves out the last slab."""
    labels = jnp.broadcast_to((jnp.arange(24) // 6).astype(jnp.uint8)[:, None, None], (24, 20, 16))
    return labels, jnp.broadcast_to((jnp.arange(24) < 18)[:, None, None], labels.shape)


def test_a_made_image_has_one_intensity_a_structure_and_another_each_time():
    labels, mask = anatomy()
    slabs = []
    for k in range(6):
        image = np.asarray(synthesize(jax.random.key(k), labels, mask))[..., 0]
        assert image.min() >= 0 and image.max() <= 1 and not image[18:].any()
        inner = [image[6 * s + 1 : 6 * s + 5] for s in range(3)]
        assert all(slab.std() < 0.2 * slab.mean() + 1e-3 for slab in inner)
        slabs.append([slab.mean() for slab in inner])
    spread = np.ptp(slabs, axis=0)
    assert (spread > 0.2).all()  # structures change from image to image, the fluid (0) too
    order = {tuple(np.argsort(row)) for row in slabs}
    assert len(order) > 1


def test_the_blur_is_a_convolution_along_each_axis_that_repeats_the_edge():
    image = jax.random.uniform(jax.random.key(3), (9, 7, 5))
    key = jax.random.key(4)
    expected = np.asarray(image, np.float64)
    for axis, w in enumerate(
        np.asarray(jax.random.uniform(jax.random.clone(key), (3,), maxval=0.25))
    ):
        expected = convolve1d(expected, [w, 1 - 2 * w, w], axis, mode="nearest")
    np.testing.assert_allclose(blurred(key, image), expected, atol=1e-6)


def test_the_share_of_made_images_is_what_is_asked_and_needs_labels():
    labels, mask = anatomy()
    image = jnp.full((*labels.shape, 1), 0.5)

    def shown(k, synthetic, labels: jax.Array | None = labels):
        return augment(
            jax.random.key(k),
            image,
            mask,
            labels,
            vary=False,
            synthetic=synthetic,
            drop_hindbrain=0.0,
        )

    made = [not np.array_equal(shown(k, 0.3), image) for k in range(60)]
    assert 8 <= sum(made) <= 30
    assert all(not np.array_equal(shown(k, 1.0), image) for k in range(5))
    np.testing.assert_array_equal(shown(0, 0.0), image)
    np.testing.assert_array_equal(shown(0, 1.0, jnp.zeros_like(labels)), image)
    np.testing.assert_array_equal(shown(0, 1.0, None), image)


def test_the_share_of_images_in_thick_slices_is_what_is_asked():
    labels, mask = anatomy()
    image = jax.random.uniform(jax.random.key(0), (*labels.shape, 1)) * mask[..., None]

    @jax.jit
    def shown(key):
        settings: dict = {"vary": False, "synthetic": 0.0, "drop_hindbrain": 0.0}
        spacing_mm = (1.0, 1.2, 2.0)
        keys = [jax.random.clone(key) for _ in range(3)]
        return [
            augment(k, image, mask, None, **settings, slices=share, spacing_mm=spacing_mm)
            for k, share in zip(keys, (0.0, 0.4, 1.0), strict=True)
        ]

    results = [np.asarray(shown(jax.random.key(k))) for k in range(40)]
    assert all(np.array_equal(none, image) for none, _, _ in results)
    assert 6 <= sum(not np.array_equal(some, image) for _, some, _ in results) <= 26
    for _, _, always in results:
        assert not np.array_equal(always, image) and not always[~np.asarray(mask)].any()


def test_a_share_beyond_one_is_refused():
    for share in (-0.1, 1.5, float("nan")):
        for name in ("synthetic_fraction", "slices_fraction", "drop_hindbrain_fraction"):
            with pytest.raises(InputError, match="--" + name.replace("_", "-")):
                dataclasses.replace(AugmentationConfig(), **{name: share})


@pytest.mark.slow
def test_a_step_with_made_images_differs_and_takes_no_label_loss(tmp_path):
    write_phantom_cohort(tmp_path, shape=(24, 32, 16), subjects={"train": 3, "val": 0, "test": 0})
    cohort = read_cohort(tmp_path)
    losses = []
    for synth in (0.0, 1.0):
        config = RegistrationConfig(
            cohort=CohortConfig(data=tmp_path),
            augmentation=AugmentationConfig(synthetic_fraction=synth),
            session=SessionConfig(validate_every=0),
            objective=ObjectiveConfig(loss="lncc"),
        )
        task = registration_task(config, cohort)
        batch = next(task.batches)
        assert ("fixed_labels" in batch) == (synth > 0)
        sample = {k: jnp.asarray(v[0]) for k, v in batch.items() if k in task.arrays}
        params = jax.tree.map(lambda x: x + 0.01, task.params)
        value, terms = task.loss(params, task.frozen, sample, jax.random.key(1))
        assert "label_dice" not in terms
        losses.append(float(value))
    assert losses[0] != losses[1] and np.isfinite(losses).all()


def test_a_cut_takes_the_hindbrain_and_its_fluid_and_nothing_else():
    labels = np.zeros((20, 16, 12), np.uint8)
    labels[2:8], labels[12:18] = 5, 3  # 3 is cut; the fluid between belongs to both
    image, mask = jnp.ones((*labels.shape, 1)), jnp.ones(labels.shape, bool)

    def shown(k, cut):
        return augment(
            jax.random.key(k), image, mask, jnp.asarray(labels), vary=False, synthetic=0.0,
            drop_hindbrain=cut, hindbrain=(3, 9),
        )  # fmt: skip

    expected = np.ones(image.shape)
    expected[9:] = 0
    np.testing.assert_array_equal(shown(0, 1.0), expected)
    cuts = [not np.array_equal(shown(k, 0.3), image) for k in range(60)]
    assert 8 <= sum(cuts) <= 30


def test_a_cohort_without_a_hindbrain_cannot_be_cut(tmp_path):
    write_phantom_cohort(tmp_path, shape=(24, 32, 16), subjects={"train": 3})
    cohort = read_cohort(tmp_path)
    assert [sorted(cohort.structures)[n - 1] for n in hindbrain_of(cohort)] == [
        k for k in sorted(cohort.structures) if k in HINDBRAIN
    ]
    known = {k: v for k, v in cohort.structures.items() if k not in HINDBRAIN}
    known |= dict.fromkeys(HINDBRAIN, "of another atlas")
    config = RegistrationConfig(
        cohort=CohortConfig(data=tmp_path),
        augmentation=AugmentationConfig(drop_hindbrain_fraction=0.5),
        session=SessionConfig(validate_every=0),
        objective=ObjectiveConfig(loss="lncc"),
    )
    with pytest.raises(InputError, match="--drop-hindbrain-fraction"):
        registration_task(config, dataclasses.replace(cohort, structures=known))
