"""What an image file's header says of its geometry, and where it contradicts itself."""

from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid
from jaxreg.io.images import FileGeometry, Remark, open_volume, read_grid
from jaxreg.io.itk_geometry import forms_apart, unit_of, usable_qform
from jaxreg.io.remarks import WARNING
from jaxreg.io.stored_images import Source, StoredImage, open_image

FORMS_MM, FORMS_DEGREES = 0.1, 1.0
"""How far sform and qform may lie apart unmentioned: at the corners of the grid, and in angle."""


class Header(NamedTuple):
    """The stored grid of a file, its axes ("RAS", "LAS" …), voxel sizes, and what is odd in it.

    `geometry` is what a file on the same grid is written with. `remarks` are on what makes no
    difference: how the file is packed, axes of length 1.
    """

    grid: Grid
    geometry: FileGeometry
    axes: str
    spacing_mm: tuple[float, float, float]
    warnings: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Remarks and warnings as a user reads them."""
        return (*self.remarks, *(f"{WARNING}{line}" for line in self.warnings))

    def __str__(self) -> str:
        """Shape, spacing, axes and centre in a line."""
        shape = " × ".join(str(n) for n in self.grid.shape)
        spacing = " × ".join(f"{s:.3g}" for s in self.spacing_mm)
        middle = self.grid.affine @ [*((np.array(self.grid.shape) - 1) / 2), 1]
        centre = ", ".join(f"{c:.1f}" for c in middle[:3])
        return f"{shape} voxels of {spacing} mm, axes {self.axes}, centre at {centre} mm (RAS)"


def read_header(path: Source, *, series: bool = False) -> Header:
    """The geometry that a NIfTI or MGZ file states; 4-D only where `series` admits it.

    Raises:
        InputError: no such file, unreadable, not 3-D, a spacing that is zero, negative or not
            finite, an affine that cannot be inverted.
    """
    stored = open_volume(path, series=series)
    grid, image = read_grid(stored, series=series), stored.image
    _check_pixdim(stored)
    x, y, z = (float(s) for s in np.linalg.norm(grid.affine[:3, :3], axis=0))
    codes = nib.aff2axcodes(grid.affine)  # pyright: ignore[reportPrivateImportUsage]
    axes = "".join(code or "?" for code in codes)
    geometry = FileGeometry(np.asarray(image.affine, np.float64), image.header)
    warnings = _form_warnings(path, image, grid)
    return Header(grid, geometry, axes, (x, y, z), warnings, storage_remarks(stored))


def opened(path: Path, remark: Remark) -> StoredImage:
    """An image file opened; `remark` gets what is unusual in its header, line by line."""
    stored = open_image(path)
    for line in read_header(stored).lines:
        remark(line)
    return stored


def storage_remarks(stored: StoredImage) -> tuple[str, ...]:
    """What is unusual in how a file holds its volume, and is accepted."""
    lines, shape = [], tuple(int(n) for n in stored.image.shape)
    if len(shape) > 3 and all(n == 1 for n in shape[3:]):
        lines.append(f"{stored}: shape {shape}; axes of length 1 are dropped")
    if not stored.named_as_stored:
        is_so = "compressed with gzip" if stored.compressed else "not compressed"
        lines.append(f"{stored}: {is_so}, other than its name says; the content counts")
    return tuple(lines)


def _form_warnings(path: Source, image: Any, grid: Grid) -> tuple[str, ...]:
    """Where a NIfTI header contradicts itself, and which of its geometries is used."""
    header = image.header
    if not isinstance(header, Nifti1Header):  # NIfTI-2 headers are of this class too
        return ()
    sform, (qform, _) = header.get_sform(coded=True)[0], usable_qform(header)
    lines = []
    if qform is None and int(header["qform_code"]) > 0:
        lines.append(f"{path}: its qform is not usable; the sform is used.")
    elif sform is None and qform is None:
        lines.append(f"{path}: neither sform nor qform is set; only the voxel size is known.")
    elif sform is not None and qform is not None:
        apart_mm, degrees = forms_apart(sform, qform, grid.shape)
        if apart_mm > FORMS_MM or degrees > FORMS_DEGREES:
            used = "sform" if _same(grid, sform) else "qform" if _same(grid, qform) else "other"
            lines.append(
                f"{path}: sform and qform lie up to {apart_mm:.1f} mm and {degrees:.1f}° apart; "
                f"the {used} is used."
            )
    apart_mm, degrees = forms_apart(image.affine, grid.affine, grid.shape)
    if apart_mm > FORMS_MM or degrees > FORMS_DEGREES:
        unit = unit_of(header)
        reason = "" if unit in ("mm", "unknown") else f" (its unit is the {unit})"
        lines.append(
            f"{path}: ITK (ANTs, SimpleITK) and nibabel read this header{reason} up to "
            f"{apart_mm:.1f} mm and {degrees:.1f}° apart; it is used as ITK reads it, so that the "
            "warps fit there."
        )
    return tuple(lines)


def _same(grid: Grid, form: np.ndarray) -> bool:
    return forms_apart(grid.affine, form, grid.shape)[0] <= FORMS_MM


def _check_pixdim(stored: StoredImage) -> None:
    """Raise InputError where a NIfTI header's voxel sizes are no sizes; nibabel repairs them."""
    block = stored.start
    for kind in (Nifti1Header, Nifti2Header):
        size = kind.sizeof_hdr
        if len(block) >= size and size in (
            int.from_bytes(block[:4], order) for order in ("little", "big")
        ):
            spacing = np.asarray(kind(block[:size], check=False)["pixdim"], np.float64)[1:4]
            if not (np.isfinite(spacing) & (spacing > 0)).all():
                raise InputError(
                    f"{stored}: expected voxel sizes above 0 mm, got {spacing.tolist()}."
                )
