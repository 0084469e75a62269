"""FSL's warps as files.

An FSL warp holds displacements from the fixed image's to the moving image's own *FSL millimetres*:
voxel indices times voxel sizes, counted backwards along the first axis where the image's affine has
a positive determinant. The world does not enter, so the moving image's geometry is part of the
warp.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid
from jaxreg.geometry.transforms import affine_points, pulled_indices, voxel_indices
from jaxreg.io.displacement_fields import write_vectors


def write_fsl_warp(path: Path | str, field: Field, moving: Grid) -> None:
    """Write a field as FSL reads a relative warp: 4-D NIfTI, intent 2006."""
    own = Field(fsl_vectors(field, moving), field.affine)
    shape = own.vectors.shape
    write_vectors(path, own, shape=shape, intent="fnirt disp field", signs=np.ones(3, np.float32))


def fsl_vectors(field: Field, moving: Grid) -> Float[np.ndarray, "x y z 3"]:
    """A field as FSL's relative warp: FSL mm in the moving image minus FSL mm in the fixed."""
    index = voxel_indices(field.grid)
    there = affine_points(_fsl_affine(moving), pulled_indices(field, moving))
    vectors = there - affine_points(_fsl_affine(field.grid), index)
    return vectors.reshape(field.vectors.shape).astype(np.float32)


def _fsl_affine(grid: Grid) -> np.ndarray:
    """Voxel indices to FSL millimetres."""
    spacing_mm = np.linalg.norm(grid.affine[:3, :3], axis=0)
    affine = np.diag([*spacing_mm, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        affine[0, 0] = -spacing_mm[0]
        affine[0, 3] = (grid.shape[0] - 1) * spacing_mm[0]
    return affine
