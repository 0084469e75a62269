"""FreeSurfer's warps as files.

A FreeSurfer warp holds the moving image's voxel coordinates at each voxel of the fixed image, in an
MGZ that carries the geometry of both. It is the MGZ warp (intent 3, absolute voxel coordinates) and
not the older .m3z: current FreeSurfer reads either wherever it takes a warp (`mri_convert -at`,
`mri_warp_convert`), and an MGZ is documented, is what mri_synthmorph writes, and can be checked
with surfa.
"""

import struct
from pathlib import Path

import numpy as np

from jaxreg.errors import InputError
from jaxreg.geometry.field import SHEAR, Field, shear
from jaxreg.geometry.grid import Grid
from jaxreg.geometry.transforms import affine_points, pulled_indices
from jaxreg.io.compression import packed


def write_freesurfer_warp(path: Path | str, field: Field, moving: Grid) -> None:
    """Write a field as an MGZ (or, by its name, an MGH) warp to a moving image's grid.

    Raises:
        InputError: axes of a grid are not orthogonal, which FreeSurfer's geometry cannot express.
    """
    for grid, name in ((moving, "moving image"), (field.grid, "warp")):
        if shear(grid.affine) > SHEAR:
            raise InputError(
                f"{path}: expected orthogonal axes of the {name}, got a cosine of "
                f"{shear(grid.affine):.3g}; resample it first."
            )
    x, y, z = field.grid.shape
    frames = pulled_indices(field, moving).reshape(x, y, z, 3)
    version = 3 << 8 | 1  # intent "warp map", version 1
    header = struct.pack(">7ih", version, x, y, z, 3, 3, 0, 1) + _placement(field.grid)
    grids = moving, field.grid
    spacing, smoothing = 1, 0.0
    data = b"".join(
        [
            header.ljust(284, b"\0"),
            frames.astype(">f4").tobytes(order="F"),
            struct.pack(">5f", 0, 0, 0, 0, 0),  # scan parameters: none
            struct.pack(">i", 10) + b"".join(_geometry(g, 0) for g in grids),  # TAG_GCAMORPH_GEOM
            struct.pack(">iq", 15, 1200) + b"".join(_geometry(g, 3) for g in grids),  # …_PLUSSHEAR
            struct.pack(">iqiif", 13, 12, 0, spacing, smoothing),  # TAG_GCAMORPH_META: absolute CRS
        ]
    )
    compressed = str(path).endswith(".mgz")
    Path(path).write_bytes(packed(data) if compressed else data)


def _placement(grid: Grid) -> bytes:
    """Voxel sizes, direction cosines (axis by axis) and the centre's RAS mm, big-endian float32."""
    spacing_mm = np.linalg.norm(grid.affine[:3, :3], axis=0)
    cosines = (grid.affine[:3, :3] / spacing_mm).ravel(order="F")
    centre = affine_points(grid.affine, np.asarray([grid.shape]) / 2)[0]
    return np.concatenate([spacing_mm, cosines, centre]).astype(">f4").tobytes()


def _geometry(grid: Grid, shears: int) -> bytes:
    """FreeSurfer's VOL_GEOM: valid, shape, placement, shears (all 0), 512 bytes of file name."""
    return struct.pack(">4i", 1, *grid.shape) + _placement(grid) + bytes(4 * shears + 512)
