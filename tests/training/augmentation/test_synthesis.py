"""Images made from label maps: geometry against hand-made labels, sides, slices, extraction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxreg.data.label_codes import CLASSES, FIRST_HEAD, MIRRORED, NUMBERS
from jaxreg.segmentation.normalization import normalize
from jaxreg.training.augmentation.synthesis import acquisition
from jaxreg.training.augmentation.synthesis.atlas import Atlas, View, sampled
from jaxreg.training.augmentation.synthesis.example import training_example
from jaxreg.training.augmentation.synthesis.missing_parts import random_extraction
from jaxreg.training.augmentation.synthesis.noise import smooth_noise

VIEW = View((16, 20, 16), 8.0, False, 0.4)
LEFT, RIGHT = NUMBERS.index(3), NUMBERS.index(42)
SIZE = (40, 50, 40)


def subject(*, head=True, image=False):
    """A ball of left and right cortex in a larger one of soft tissue, voxels of 4 mm."""
    x, y, z = np.indices(SIZE) - (np.array(SIZE).reshape(3, 1, 1, 1) - 1) / 2
    radius = np.sqrt(x**2 + y**2 + z**2)
    codes = np.where(radius < 16, FIRST_HEAD + 7 if head else 0, 0)
    codes = np.where(radius < 12, np.where(x < 0, LEFT, RIGHT), codes).astype(np.uint8)
    frame = np.diag([0.25, 0.25, 0.25, 1.0])
    frame[:3, 3] = (np.array(SIZE) - 1) / 2
    real = np.where(x < 0, 50, 200).astype(np.uint8)
    return Atlas(
        codes=jnp.asarray(codes.ravel()),
        images=jnp.asarray(real.ravel()),
        start=jnp.zeros(1, jnp.int32),
        image_start=jnp.full((1, 2), 0 if image else -1, jnp.int32),
        shape=jnp.asarray([SIZE], jnp.int32),
        frames=jnp.asarray(frame[None], jnp.float32),
        has_head=jnp.asarray([head]),
    ), codes


@functools.partial(jax.jit, static_argnames=("view", "real"))
def example(key, atlas, *, view=VIEW, real=0.0):
    return training_example(key, atlas, jnp.int32(0), view, real)


@pytest.fixture(scope="module")
def examples():
    atlas, _ = subject()
    return [example(jax.random.key(k), atlas) for k in range(12)]


def test_images_are_finite_normalized_and_differ(examples):
    for image, codes in examples:
        assert image.shape == codes.shape == VIEW.shape
        assert np.isfinite(image).all() and float(image.min()) >= 0 and float(image.max()) == 1
        assert set(np.unique(codes)) <= {0, LEFT, RIGHT}
    means = [float(image.mean()) for image, _ in examples]
    assert np.std(means) > 0.03


def test_left_stays_left_however_the_subject_is_mirrored(examples):
    for _, codes in examples:
        left, right = (np.argwhere(np.asarray(codes) == c).mean(axis=0) for c in (LEFT, RIGHT))
        assert left[0] < right[0] - 2


def test_a_mirrored_subject_has_its_real_image_mirrored_and_its_labels_exchanged():
    atlas, _ = subject(image=True)
    brighter = []
    for k in range(16):
        image, codes = example(jax.random.key(k), atlas, real=1.0)
        image, codes = np.asarray(image), np.asarray(codes)
        brighter.append(image[codes == RIGHT].mean() > image[codes == LEFT].mean())
    # The image is bright on the right, and on the left once mirrored (or its contrast turned).
    assert 2 < sum(brighter) < 14


def test_the_other_side_of_the_other_side_is_the_side_itself():
    np.testing.assert_array_equal(MIRRORED[MIRRORED], np.arange(len(MIRRORED)))
    pairs = {(NUMBERS[a], NUMBERS[MIRRORED[a]]) for a in range(CLASSES)}
    assert {(2, 41), (41, 2), (17, 53), (16, 16), (24, 24), (28, 60)} <= pairs


def test_labels_are_those_with_the_largest_weight_and_images_linear():
    atlas, codes = subject(image=True)
    key = jax.random.key(1)
    points = jax.random.uniform(key, (3, 9, 9, 9), minval=1.0, maxval=38.0)
    found, values = jax.jit(
        lambda p: sampled(atlas, jnp.int32(0), (p[0], p[1], p[2]), jnp.int32(0))
    )(points)
    one_hot = [ndimage.map_coordinates(np.float64(codes == c), points, order=1) for c in range(256)]
    best = np.max(one_hot, axis=0)
    chosen = np.take_along_axis(np.array(one_hot), np.asarray(found)[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(chosen, best, atol=1e-5)  # of two with one weight either may win
    image = np.asarray(atlas.images).reshape(SIZE) / 255
    expected = ndimage.map_coordinates(image, points, order=1)
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_beyond_a_subject_there_is_air():
    atlas, _ = subject(image=True)
    x, y = jnp.full((1, 1, 1), -0.6), jnp.full((1, 1, 1), 20.0)
    found, values = sampled(atlas, jnp.int32(0), (x, y, y), jnp.int32(0))
    assert int(found[0, 0, 0]) == 0 and float(values[0, 0, 0]) == 0


@pytest.mark.parametrize("sigma_mm", [10.0, 40.0])
def test_smooth_noise_has_unit_variance_and_the_correlation_of_its_gaussian(sigma_mm):
    noise = jax.random.normal(jax.random.key(0), (300, 24, 24, 24))
    field = smooth_noise(noise, (3, 3, 3), spacing_mm=8.0, node_mm=8.0, sigma_mm=sigma_mm)
    centre, beside = np.asarray(field)[:, 1, 1, 1], np.asarray(field)[:, 2, 1, 1]
    assert 0.8 < centre.std() < 1.2  # 300 draws
    expected = np.exp(-(8.0**2) / (4 * sigma_mm**2))
    assert abs(np.corrcoef(centre, beside)[0, 1] - expected) < 0.05


def test_an_acquired_constant_is_that_constant_but_for_noise():
    image = jnp.full(tuple(2 * n for n in VIEW.shape), 0.7)
    acquired = jax.jit(lambda k: acquisition.acquired(k, image, VIEW))
    for k in range(5):
        result = np.asarray(acquired(jax.random.key(k)))
        assert result.shape == VIEW.shape
        assert abs(result.mean() - 0.7) < 0.02 and result.std() < 0.1


def test_slices_average_over_their_thickness():
    voxels, slices = np.arange(60.0), np.array([20.0, 40.0])
    for box in (True, False):
        weights = np.asarray(acquisition._profile(slices, voxels, jnp.float32(6), box, 1.0))
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(weights @ voxels, slices, atol=1e-3)
        half = weights[0] > weights[0].max() / 2
        assert 5 <= half.sum() <= 7


def test_thick_slices_spread_a_voxel_across_one_axis_and_leave_a_ramp_as_it_is():
    shape, centre, spacing_mm = (16, 18, 20), (7, 9, 10), (1.0, 2.0, 3.0)
    seen = jax.jit(lambda k, x: acquisition.in_slices(k, x, spacing_mm=spacing_mm))
    voxel = jnp.zeros(shape).at[centre].set(1)
    axes, sums = set(), []
    for k in range(24):
        spread = np.asarray(seen(jax.random.key(k), voxel))
        places = np.argwhere(spread > 1e-4)
        (axis,) = np.flatnonzero(np.ptp(places, axis=0))
        assert np.abs(places - centre).max() <= 9  # a slice and its neighbours, 3.5 voxels each
        ramp = np.indices(shape)[axis]
        kept = np.asarray(seen(jax.random.key(k), jnp.float32(ramp)))
        inner = range(6, shape[axis] - 6)
        np.testing.assert_allclose(kept.take(inner, axis), ramp.take(inner, axis), atol=0.1)
        axes.add(int(axis))
        sums.append(spread.sum())
    assert axes == {0, 1, 2}
    assert abs(np.mean(sums) - 1) < 0.1 and np.std(sums) > 0.01  # the phase of the slices varies


def test_outside_an_extracted_brain_there_is_nothing():
    atlas, _ = subject(head=False)
    for k in range(6):
        image, codes = example(jax.random.key(k), atlas)
        far = ndimage.binary_dilation(np.asarray(codes) > 0, iterations=3) == 0
        assert not np.asarray(image)[far].any() and far.sum() > 100


def test_extraction_is_tight_or_wide_around_the_brain():
    x = (np.indices((40, 40, 40))[0] - 19.5) * 2.0
    brain = jnp.asarray(x < 0)
    extraction = jax.jit(lambda k: random_extraction(k, brain, 2.0))
    borders = np.array(
        [np.asarray(extraction(jax.random.key(k)))[:, 20, 20].sum() for k in range(60)]
    )
    margins = (borders - 20) * 2.0
    assert margins.min() < 0 and margins.max() > 5
    assert margins.min() >= -7 and margins.max() <= 13  # −2 to 8 mm, and up to 5 of roughness


def test_normalization_takes_the_percentiles_that_it_says():
    image = jnp.asarray(np.random.default_rng(0).gamma(2.0, size=(30, 33, 36)), jnp.float32)
    part = np.asarray(image)[1::3, 1::3, 1::3]
    low = np.percentile(part, 0.5)
    high = np.percentile(part[part > part.mean()], 99.5)
    expected = np.clip((np.asarray(image) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(jax.jit(normalize)(image), expected, atol=0.02)
