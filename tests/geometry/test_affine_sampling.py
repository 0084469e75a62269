"""Volumes read through affines, against SciPy."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from jaxreg.geometry.affine_sampling import sample_affine

GRIDS = {
    "oblique": ((0.7, 1.3, 0.9), (-0.2, 0.1, 0.15), (-2.0, 1.5, -1.0)),
    "halves": ((0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (-0.75, -0.75, -0.75)),
    "mirrored, beyond the volume": ((-1.0, 1.0, 0.5), (0.0, 0.0, 0.0), (14.0, -3.0, 2.0)),
    "elsewhere": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (100.0, 0.0, 0.0)),
}


@pytest.mark.parametrize("shape", [(13, 7, 19), (1, 7, 19), (5, 1, 1)])
@pytest.mark.parametrize("grid", GRIDS)
def test_values_are_those_of_scipy_to_the_outer_edges(grid, shape):
    scales, turn, shift = GRIDS[grid]
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(scales) + np.cross(np.eye(3), turn)
    matrix[:3, 3] = shift
    array = np.random.default_rng(0).normal(50, 20, shape).astype(np.float32)
    offset: Any = matrix[:3, 3]
    wanted = ndimage.affine_transform(
        array, matrix[:3, :3], offset, output_shape=(17, 14, 23), order=1, mode="grid-constant"
    )
    found = sample_affine(array, matrix, (17, 14, 23))
    assert found.dtype == np.float32
    if min(shape) > 1:
        assert (np.asarray(wanted) != 0).any() == (grid != "elsewhere")
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_grid_without_voxels_has_no_values():
    assert sample_affine(np.ones((3, 4, 5), np.float32), np.eye(4), (2, 0, 3)).shape == (2, 0, 3)
