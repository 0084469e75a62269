"""Volumes and fields read by SimpleITK, against SciPy and against the maps of points."""

import functools
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from jaxreg.geometry import itk_sampling
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.itk_sampling import sample_affine
from jaxreg.geometry.transforms import (
    affine_points,
    compose,
    compose_chain,
    map_points,
    resample,
    resample_by,
    voxel_indices,
)

GRIDS = {
    "oblique": ((0.7, 1.3, 0.9), (-0.2, 0.1, 0.15), (-2.0, 1.5, -1.0)),
    "halves": ((0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (-0.5, -0.5, -0.5)),
    "mirrored, beyond the volume": ((-1.0, 1.0, 0.5), (0.0, 0.0, 0.0), (14.0, -3.0, 2.0)),
    "elsewhere": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (100.0, 0.0, 0.0)),
}
SHAPES = [(13, 7, 19), (1, 7, 19), (5, 1, 1)]
SHAPE = (17, 14, 23)


def matrix_of(grid: str) -> np.ndarray:
    """The matrix that takes a grid's voxel coordinates to a volume's."""
    scales, turn, shift = GRIDS[grid]
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(scales) + np.cross(np.eye(3), turn)
    matrix[:3, 3] = shift
    return matrix


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(50, 20, shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_values_are_those_of_scipy_to_the_outer_edges(grid, shape):
    matrix, array = matrix_of(grid), random(*shape)
    offset: Any = matrix[:3, 3]
    wanted = ndimage.affine_transform(
        array, matrix[:3, :3], offset, output_shape=SHAPE, order=1, mode="grid-constant"
    )
    found = sample_affine(array, matrix, SHAPE)
    assert found.dtype == np.float32
    if min(shape) > 1:
        assert (np.asarray(wanted) != 0).any() == (grid != "elsewhere")
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_grid_without_voxels_has_no_values():
    assert sample_affine(np.ones((3, 4, 5), np.float32), np.eye(4), (2, 0, 3)).shape == (2, 0, 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", ["field alone", "affines around the field", "no field"])
def test_a_chain_composed_is_what_it_does_to_points(order, grid, shape):
    """Also where it leaves the field's grid, and on the edges of that, which belong to it."""
    spacing = np.diag([1.5, 2.0, 1.2, 1.0])
    field = Field(random(*shape, 3) / 50, spacing)
    turn = matrix_of("oblique")
    chain = {
        "field alone": [field],
        "affines around the field": [turn, np.linalg.inv(turn), field, turn, turn],
        "no field": [turn, turn],
    }[order]
    there = Grid(SHAPE, spacing @ matrix_of(grid))
    wanted = compose(functools.partial(map_points, chain), there)
    np.testing.assert_allclose(compose_chain(chain, there).vectors, wanted.vectors, atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_an_image_moved_by_a_field_is_the_image_at_the_fields_points(grid, shape, monkeypatch):
    """Fields that lead into the volume, beyond it and onto its edges, in several slabs."""
    monkeypatch.setattr(itk_sampling, "_AT_ONCE", 700)
    moving = Volume(random(*shape), np.diag([1.5, 2.0, 1.2, 1.0]))
    own = moving.affine @ matrix_of(grid)
    vectors = 2 * (random(*SHAPE, 3) / 50 - 1)
    vectors[:4] = 0  # onto the edges of the volume, where the two grids share them
    field = Field(vectors, own)
    world = affine_points(own, voxel_indices(field.grid)) + vectors.reshape(-1, 3)
    wanted = resample(moving, lambda points: world, Grid((SHAPE[0], SHAPE[1], SHAPE[2]), own))
    np.testing.assert_allclose(resample_by(moving, field), wanted, atol=2e-3)
