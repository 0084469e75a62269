"""Packing against what unpacks it: NumPy, worked by hand."""

import base64
import gzip

import numpy as np
import pytest

from jaxreg.registration.report import encoding


def test_text_is_the_bytes_with_x_fastest_and_the_same_every_time():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    packed = encoding.text(array)
    unpacked = np.frombuffer(gzip.decompress(base64.b64decode(packed)), np.uint8)
    x, y, z = 1, 2, 3
    assert unpacked[x + 2 * (y + 3 * z)] == array[x, y, z]
    assert encoding.text(array.copy(order="F")) == packed


def test_grey_levels_span_the_window_and_survive_nan():
    image = np.array([[[0.0, 50, 100, 1e9, -3, np.nan, np.inf]]])
    assert encoding.grey(image, (0.0, 100.0)).tolist() == [[[0, 128, 255, 255, 0, 0, 255]]]


def test_window_leaves_out_the_background_and_reaches_below_zero():
    image = np.zeros((10, 10, 10))
    assert encoding.intensity_window(image) == (0.0, 1.0)
    image[:5] = np.linspace(100, 200, 500).reshape(5, 10, 10)
    low, high = encoding.intensity_window(image)
    assert low == 0 and high == pytest.approx(199.5, abs=0.1)  # the 99.5th percentile
    assert encoding.intensity_window(image - 300)[0] < -299


def test_differences_sum_to_the_volumes():
    volumes = [np.random.default_rng(i).integers(0, 256, (3, 4, 5), np.uint8) for i in range(4)]
    stack = encoding.differences(volumes)
    np.testing.assert_array_equal(np.cumsum(stack, axis=-1, dtype=np.uint8), np.stack(volumes, -1))


def test_vectors_are_those_of_a_linear_field_at_the_halved_voxels():
    slopes = np.array([0.2, -0.1, 0.05])
    grid = np.moveaxis(np.indices((8, 6, 4)), 0, -1)
    field = (grid * slopes).astype(np.float32)
    values, unit = encoding.vectors([field, -2 * field])
    half = 2 * np.moveaxis(np.indices((4, 3, 2)), 0, -1) + 0.5
    for k, factor in enumerate((1, -2)):
        # half a unit, and float32 rounding
        np.testing.assert_allclose(
            unit * values[..., k], factor * half * slopes, atol=0.5 * unit + 1e-6
        )


def test_a_displacement_of_nothing_packs():
    values, unit = encoding.vectors([np.zeros((5, 5, 5, 3), np.float32)])
    assert values.shape == (3, 3, 3, 3, 1) and not values.any() and unit > 0


def test_determinants_are_logarithmic_and_one_fold_in_a_block_shows():
    jacobian = np.ones((8, 2, 2))
    jacobian[2:4], jacobian[4:6], jacobian[6:] = 2.0, 0.25, 1.0
    jacobian[7, 1, 1] = -0.01
    levels = encoding.determinants(jacobian)[:, 0, 0].astype(int)
    steps = encoding.DETERMINANT_STEPS
    assert levels.tolist() == [128, 128 + steps, 128 - 2 * steps, 0]
    assert encoding.determinants(np.full((2, 2, 2), np.nan)).item() == 0


def test_lengths_are_shares_of_their_top():
    values = np.linspace(0, 3, 20)[:, None, None] * np.ones((20, 4, 4))
    levels, top = encoding.lengths(values)
    assert levels.max() == 255 and top == pytest.approx(values[18:].mean())  # the last block
    assert levels[0, 0, 0] == round(255 * values[:2].mean() / top)
    levels, top = encoding.lengths(np.full((4, 4, 4), np.nan))
    assert not levels.any() and top > 0
