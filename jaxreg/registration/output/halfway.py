"""Two images of one subject halfway between them, so that both are resampled alike.

Where one image stays, only the other one is smoothed by interpolation, and a measure of change
between them leans to one side (Reuter and Fischl, NeuroImage 57, 2011).
"""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import affine_points, map_points, resample
from jaxreg.io.images import image_of, save
from jaxreg.io.itk_transforms import write_affine
from jaxreg.registration.register import Registration


def rigid_root(matrix: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """The rigid map that is `matrix`, itself a rigid map, when it is done twice."""
    turn = Rotation.from_matrix(matrix[:3, :3]).as_rotvec()
    root = np.eye(4)
    root[:3, :3] = Rotation.from_rotvec(turn / 2).as_matrix()
    root[:3, 3] = np.linalg.solve(root[:3, :3] + np.eye(3), matrix[:3, 3])
    return root


def halfway_grid(fixed: Grid, root: Float[np.ndarray, "4 4"]) -> Grid:
    """The voxels of the fixed image about the place to which `root` takes its centre.

    Against them one image is turned by half of the turn between both, and the other one by as much
    the other way.
    """
    centre = affine_points(fixed.affine, (np.array([fixed.shape]) - 1) / 2)
    affine = fixed.affine.copy()
    affine[:3, 3] += (affine_points(root, centre) - centre)[0]
    return Grid(fixed.shape, affine)


def write_halfway(result: Registration, folder: Path) -> None:
    """Write both images halfway, each resampled once, and the maps from there to both spaces."""
    root = rigid_root(result.affine)
    grid = halfway_grid(result.fixed.header.grid, root)
    sides = {"fixed": (result.fixed, np.linalg.inv(root)), "moving": (result.moving, root)}
    for role, (side, matrix) in sides.items():
        array = resample(side.image, partial(map_points, [matrix]), grid)
        save(folder / f"{role}_halfway.nii.gz", image_of(Volume(array, grid.affine)))
        write_affine(folder / f"halfway_to_{role}.mat", matrix)
