"""Voxel grids and the volumes that lie on them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped


class Volume(NamedTuple):
    """A 3-D array in RAS+ order and the affine of its voxel indices to RAS millimetres."""

    array: Shaped[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each array axis, in millimetres."""
        return _spacing_mm(self.affine)

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel, in millilitres."""
        return _voxel_ml(self.affine)


class Grid(NamedTuple):
    """A voxel grid, axes in any order: its shape, and its indices' affine to RAS millimetres."""

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis, in millimetres."""
        return _spacing_mm(self.affine)

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel, in millilitres."""
        return _voxel_ml(self.affine)


def _spacing_mm(affine: Float[np.ndarray, "4 4"]) -> tuple[float, float, float]:
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def _voxel_ml(affine: Float[np.ndarray, "4 4"]) -> float:
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def coarser_grid(volume: Volume, spacing_mm: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a grid of isotropic `spacing_mm` over the same field of view.

    The lower corners (voxel edges, not centres) coincide; the last voxel may reach beyond.
    """
    factor = np.asarray(volume.spacing_mm) / spacing_mm
    shape = tuple(int(n) for n in np.ceil(np.asarray(volume.array.shape) * factor - 1e-6))
    to_old = np.diag([*(1 / factor), 1.0])
    to_old[:3, 3] = 0.5 / factor - 0.5
    return shape, volume.affine @ to_old


def sparser_grid(grid: Grid, spacing_mm: float) -> Grid:
    """Every so many voxels of a grid, from its first one on, until its last one is reached.

    Axes with voxels of `spacing_mm` and larger ones stay as they are.
    """
    step = np.maximum(spacing_mm / np.asarray(grid.spacing_mm), 1)
    x, y, z = (int(n) for n in np.ceil((np.asarray(grid.shape) - 1) / step - 1e-6) + 1)
    return Grid((x, y, z), grid.affine @ np.diag([*step, 1]))


def grid_of(image: Volume) -> Grid:
    """The grid a volume lies on."""
    x, y, z = image.array.shape
    return Grid((x, y, z), image.affine)
