"""Background and foreground of images without a mask, against the ellipsoid that was put there."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from jaxreg.data.foreground import background_value, foreground, zero_intensity
from jaxreg.geometry.grid import Volume

SHAPE = (32, 36, 32)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def ellipsoid(scale=1.0):
    at = np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2
    return ((at / (scale * np.array([10, 13, 11]))) ** 2).sum(axis=-1) < 1


def standardised(random):
    """Mean 0 and deviation 1 inside, 0 outside: the background is not the lowest value."""
    values = gaussian_filter(random.normal(size=SHAPE), 2)
    brain = ellipsoid()
    return np.where(brain, (values - values[brain].mean()) / values[brain].std(), 0)


@pytest.mark.parametrize("background", [0, -3, -1024, 1])
def test_what_was_cut_out_is_the_foreground(background):
    values = np.random.default_rng(0).uniform(100, 200, SHAPE)
    image = np.where(ellipsoid(), values, background).astype(np.float32)
    assert background_value(image) == background
    got = foreground(Volume(image, AFFINE))
    np.testing.assert_array_equal(got.mask, ellipsoid())
    assert got.background_share == pytest.approx(1 - ellipsoid().mean())
    assert got.litres == pytest.approx(ellipsoid().sum() * 27e-6)
    assert got.is_brain
    assert not foreground(Volume(image, np.diag([12.0, 12.0, 12.0, 1.0]))).is_brain


def test_a_background_within_the_range_of_the_brain_is_found():
    image = standardised(np.random.default_rng(0)).astype(np.float32)
    assert image.min() < 0 == background_value(image)
    np.testing.assert_array_equal(foreground(Volume(image, AFFINE)).mask, ellipsoid())


def test_grey_levels_of_noisy_air_are_no_background():
    """A coarse quantisation gives a third of the voxels the value 1, and fewer the value 0."""
    random = np.random.default_rng(0)
    air = random.choice([0, 1, 2, 3], SHAPE, p=[0.2, 0.4, 0.25, 0.15])
    image = np.where(ellipsoid(), 100 + air, air).astype(np.float32)
    assert background_value(image) is None
    assert not foreground(Volume(image, AFFINE)).is_brain


def test_a_head_in_noisy_air_is_found_with_its_dark_inside():
    rng = np.random.default_rng(0)
    image = np.where(np.arange(32)[:, None, None] < 16, 300.0, 120.0)  # the dark half counts too
    image = np.where(ellipsoid() & ~ellipsoid(0.3), image, 0)
    image = np.hypot(image + rng.normal(0, 12, SHAPE), rng.normal(0, 12, SHAPE))
    got = foreground(Volume(image.astype(np.float32), AFFINE))
    dice = 2 * (got.mask & ellipsoid()).sum() / (got.mask.sum() + ellipsoid().sum())
    assert dice > 0.95 and got.mask[ellipsoid(0.5)].all()  # a rim of half a voxel costs 0.03
    assert got.background_share is None and not got.is_brain


def rippled(kind, random):
    """A brain of 100 to 200 in zeros that are no longer zeros."""
    values = random.uniform(100, 200, SHAPE)
    brain = ellipsoid()
    if kind == "splines":  # overshoot beside the brain, then ever smaller ripples
        return zoom(zoom(np.where(brain, values, 0), 1.3, order=3), 1 / 1.3, order=3)
    noise = random.normal(0, 0.3, SHAPE)
    noise = {"noise": noise, "cut at 0": np.maximum(noise, 0), "absolute": np.abs(noise)}[kind]
    return np.where(brain, values, noise)


@pytest.mark.parametrize("kind", ["noise", "cut at 0", "absolute", "splines"])
@pytest.mark.parametrize("offset", [0, 1024])
def test_a_background_that_ripples_is_the_background(kind, offset):
    image = (rippled(kind, np.random.default_rng(0)) + offset).astype(np.float32)
    assert image.shape == SHAPE
    got = foreground(Volume(image, AFFINE))
    assert got.is_brain
    dice = 2 * (got.mask & ellipsoid()).sum() / (got.mask.sum() + ellipsoid().sum())
    assert dice > (0.9 if kind == "splines" else 0.999)  # overshoot makes a rim of a voxel
    assert zero_intensity(image) == pytest.approx(offset, abs=1)


def test_a_negative_background_is_a_mark_and_a_bright_one_no_zero():
    values = np.random.default_rng(0).uniform(100, 200, SHAPE)
    for background, zero in ((1, 1), (50, 50), (0, 0), (-1024, 0), (-0.5, 0), (255, 0)):
        image = np.where(ellipsoid(), values, background).astype(np.float32)
        assert zero_intensity(image) == zero
