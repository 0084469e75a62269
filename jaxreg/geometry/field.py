"""Displacement fields in memory: RAS millimetres on a grid."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.geometry.grid import Grid

SHEAR = 1e-3
"""A cosine between axes that headers' rounding explains; beyond it a grid is sheared."""


class Field(NamedTuple):
    """Displacements in RAS millimetres on a grid; `affine` maps its indices to RAS millimetres."""

    vectors: Float[np.ndarray, "x y z 3"]
    affine: Float[np.ndarray, "4 4"]

    @property
    def grid(self) -> Grid:
        """The grid that the vectors lie on."""
        x, y, z = self.vectors.shape[:3]
        return Grid((x, y, z), self.affine)


def shear(affine: Float[np.ndarray, "4 4"]) -> float:
    """The largest cosine between two of a grid's axes: 0 where they are orthogonal."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())
