"""ITK displacement fields as FSL and FreeSurfer warps: what `jaxreg convert` does.

All three pull back: for a voxel of the fixed image they say where its value lies in the moving
image. They differ in coordinates. ITK: displacement in world millimetres (LPS). FSL: displacement
from the fixed image's to the moving image's own *FSL millimetres*, which are voxel indices times
voxel sizes, counted backwards along the first axis where the image's affine has a positive
determinant; the world does not enter, so the moving image's geometry is part of the warp.
FreeSurfer: the moving image's voxel coordinates, in an MGZ that carries both geometries.

For FreeSurfer this is the MGZ warp (intent 3, absolute voxel coordinates) and not the older .m3z:
current FreeSurfer reads either wherever it takes a warp (`mri_convert -at`, `mri_warp_convert`),
and an MGZ is documented, is what mri_synthmorph writes, and can be checked with surfa.
"""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxreg.errors import InputError, require_choice
from jaxreg.geometry.field import SHEAR, Field, shear
from jaxreg.geometry.grid import Grid
from jaxreg.geometry.transforms import affine_points
from jaxreg.io.atomic import completed
from jaxreg.io.displacement_fields import read_field, write_field
from jaxreg.io.fsl import write_fsl_vectors
from jaxreg.io.images import read_grid

FORMATS = {"itk": (".nii", ".nii.gz"), "fsl": (".nii", ".nii.gz"), "freesurfer": (".mgz", ".mgh")}

_PROVENANCE = "provenance.json"


def convert_file(
    warp: Path | str, to: str, out: Path | str, *, moving: Path | str | None = None
) -> None:
    """Write the ITK displacement field in `warp` as `to`: itk, fsl or freesurfer.

    The moving image's geometry, which FSL and FreeSurfer warps contain, is taken from `moving`,
    else from the provenance.json beside the warp.

    Raises:
        InputError: an unknown format, an unreadable file, a geometry that is not known, or an
            output name that does not fit.
    """
    require_choice("to", to, tuple(FORMATS))
    if not str(out).endswith(FORMATS[to]):
        names = " or ".join(FORMATS[to])
        raise InputError(f"{out}: expected a name that ends in {names} for --to {to}.")
    if Path(out).resolve() == Path(warp).resolve():
        raise InputError(f"{out}: expected another name than the warp's own.")
    field = read_field(warp)
    if to == "itk":
        with completed(out) as path:
            write_field(path, field)
        return
    source = read_grid(moving) if moving is not None else _recorded_grid(Path(warp), field.grid)
    with completed(out) as path:
        if to == "fsl":
            write_fsl_vectors(path, fsl_vectors(field, source), field.affine)
        else:
            path.write_bytes(_freesurfer_bytes(out, field, source))


def fsl_vectors(field: Field, moving: Grid) -> Float[np.ndarray, "x y z 3"]:
    """A field as FSL's relative warp: FSL mm in the moving image minus FSL mm in the fixed."""
    index = _indices(field.grid)
    there = affine_points(_fsl_affine(moving), moving_index(field, moving))
    vectors = there - affine_points(_fsl_affine(field.grid), index)
    return vectors.reshape(field.vectors.shape).astype(np.float32)


def moving_index(field: Field, moving: Grid) -> Float[np.ndarray, "n 3"]:
    """Voxel coordinates in the moving image that each voxel of the field is taken to."""
    world = affine_points(field.affine, _indices(field.grid)) + field.vectors.reshape(-1, 3)
    return affine_points(np.linalg.inv(moving.affine), world)


def _indices(grid: Grid) -> Float[np.ndarray, "n 3"]:
    return np.indices(grid.shape).reshape(3, -1).T.astype(np.float64)


def _fsl_affine(grid: Grid) -> np.ndarray:
    """Voxel indices to FSL millimetres."""
    spacing_mm = np.linalg.norm(grid.affine[:3, :3], axis=0)
    affine = np.diag([*spacing_mm, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        affine[0, 0] = -spacing_mm[0]
        affine[0, 3] = (grid.shape[0] - 1) * spacing_mm[0]
    return affine


def _freesurfer_bytes(path: Path | str, field: Field, moving: Grid) -> bytes:
    """The content of an MGZ (or MGH) warp file."""
    for grid, name in ((moving, "moving image"), (field.grid, "warp")):
        if shear(grid.affine) > SHEAR:
            raise InputError(
                f"{path}: expected orthogonal axes of the {name}, got a cosine of "
                f"{shear(grid.affine):.3g}; resample it first."
            )
    x, y, z = field.grid.shape
    frames = moving_index(field, moving).reshape(x, y, z, 3)
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
    return gzip.compress(data, 6, mtime=0) if str(path).endswith(".mgz") else data


def _placement(grid: Grid) -> bytes:
    """Voxel sizes, direction cosines (axis by axis) and the centre's RAS mm, big-endian float32."""
    spacing_mm = np.linalg.norm(grid.affine[:3, :3], axis=0)
    cosines = (grid.affine[:3, :3] / spacing_mm).ravel(order="F")
    centre = affine_points(grid.affine, np.asarray([grid.shape]) / 2)[0]
    return np.concatenate([spacing_mm, cosines, centre]).astype(">f4").tobytes()


def _geometry(grid: Grid, shears: int) -> bytes:
    """FreeSurfer's VOL_GEOM: valid, shape, placement, shears (all 0), 512 bytes of file name."""
    return struct.pack(">4i", 1, *grid.shape) + _placement(grid) + bytes(4 * shears + 512)


def _recorded_grid(warp: Path, own: Grid) -> Grid:
    """The grid that a warp leads to, from the provenance.json that jaxreg wrote beside it.

    A warp lies on the fixed grid and leads to the moving image; the inverse warp the other way.
    """
    path = warp.parent / _PROVENANCE
    if not path.is_file():
        raise InputError(f"{warp}: expected --moving or a {_PROVENANCE} beside it, got neither.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        fixed, moving = (_grid(record[role]["grid"]) for role in ("fixed", "moving"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no geometry of fixed and moving in it; give --moving."
        ) from error
    inverse = warp.name.startswith("inverse")
    lies_on, leads_to = (moving, fixed) if inverse else (fixed, moving)
    if lies_on.shape != own.shape or not np.allclose(lies_on.affine, own.affine, atol=1e-2):
        raise InputError(f"{warp}: not the warp that {path} records; give --moving.")
    return leads_to


def _grid(record: Any) -> Grid:
    x, y, z = (int(n) for n in record["shape"])
    affine = np.asarray(record["affine"], np.float64)
    if affine.shape != (4, 4):
        raise ValueError("affine")
    return Grid((x, y, z), affine)
