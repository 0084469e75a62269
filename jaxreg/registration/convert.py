"""ITK displacement fields as FSL and FreeSurfer warps: what `jaxreg convert` does.

All three pull back: for a voxel of the fixed image they say where its value lies in the moving
image. They differ in coordinates. An ITK field holds displacements in world millimetres (LPS); what
FSL's and FreeSurfer's warps hold is said in `io/fsl` and `io/freesurfer`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxreg.errors import InputError, require_choice
from jaxreg.geometry.grid import Grid
from jaxreg.io.atomic import claimed_file, completed
from jaxreg.io.displacement_fields import read_field, write_field
from jaxreg.io.freesurfer import write_freesurfer_warp
from jaxreg.io.fsl import write_fsl_warp
from jaxreg.io.headers import read_header
from jaxreg.registration.moved import Notes

FORMATS = {"itk": (".nii", ".nii.gz"), "fsl": (".nii", ".nii.gz"), "freesurfer": (".mgz", ".mgh")}

_PROVENANCE = "provenance.json"


def convert_file(
    warp: Path | str, to: str, out: Path | str, *, moving: Path | str | None = None
) -> list[str]:
    """Write the ITK displacement field in `warp` as `to`: itk, fsl or freesurfer.

    The moving image's geometry, which FSL and FreeSurfer warps contain, is taken from `moving`,
    else from the provenance.json beside the warp.

    Returns:
        What is odd in the moving image's header, lines to print.

    Raises:
        InputError: an unknown format, an unreadable file, a geometry that is not known, or an
            output whose name does not fit or that cannot be written.
    """
    require_choice("to", to, tuple(FORMATS))
    if not str(out).endswith(FORMATS[to]):
        names = " or ".join(FORMATS[to])
        raise InputError(f"{out}: expected a name that ends in {names} for --to {to}.")
    inputs = [Path(path) for path in (warp, moving) if path is not None]
    with claimed_file(out, inputs=inputs):
        field, notes = read_field(warp), Notes()
        if to == "itk":
            with completed(out) as path:
                write_field(path, field)
            return []
        if moving is not None:
            source = notes.of(read_header(moving, series=True)).grid
        else:
            source = _recorded_grid(Path(warp), field.grid)
        with completed(out) as path:
            if to == "fsl":
                write_fsl_warp(path, field, source)
            else:
                write_freesurfer_warp(path, field, source)
    return notes.lines()


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
