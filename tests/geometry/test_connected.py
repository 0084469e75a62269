"""Connected parts of masks, against SciPy and by hand."""

import numpy as np
import pytest
from scipy import ndimage

from jaxreg.geometry.connected import fill_holes, largest_part


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_holes_are_those_of_scipy(share):
    mask = np.random.default_rng(0).random((11, 17, 13)) < share
    filled = fill_holes(mask)
    np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(mask))
    assert (filled & ~mask).any() == (share > 0.3)


def test_a_mask_that_fills_the_volume_has_no_holes():
    assert fill_holes(np.ones((3, 4, 5), bool)).all()
    assert not fill_holes(np.zeros((3, 4, 5), bool)).any()


def test_the_largest_part_is_kept_and_filled():
    mask = np.zeros((12, 10, 8), bool)
    mask[1:7, 1:8, 1:6] = True
    mask[3, 4, 3] = False
    mask[9:11, 2:5, 2:5] = True
    kept = largest_part(mask)
    assert kept[3, 4, 3]
    assert not kept[8:].any()
    assert kept.sum() == 6 * 7 * 5


def test_nothing_has_no_parts():
    assert not largest_part(np.zeros((3, 4, 5), bool)).any()
