"""Displacement fields: ITK vector NIfTI files ↔ arrays of RAS millimetres.

On disk a field is what ITK, SimpleITK and ANTs read and write: LPS millimetres, float32, shape
(x, y, z, 1, 3), intent 1007. In memory its axes keep the file's order: a warp lies on the grid of
an image as that image is stored, whatever its orientation.
"""

import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Image

from jaxreg.errors import InputError, first_line
from jaxreg.geometry.field import SHEAR, Field, shear
from jaxreg.io.images import check_affine, save
from jaxreg.io.itk_geometry import itk_affine
from jaxreg.io.stored_images import UNREADABLE, open_image

LPS = np.array([-1, -1, 1], np.float32)
"""ITK's world axes as signs of the RAS axes. This module has no SimpleITK, so that processes may
read fields beside another build of ITK."""


def read_field(path: Path | str) -> Field:
    """The displacement field in an ITK vector NIfTI, float32.

    Raises:
        InputError: no such file, unreadable or truncated, another shape, NaN.
    """
    image = open_image(path, vectors=True).image
    shape = tuple(image.shape)
    if len(shape) != 5 or shape[3:] != (1, 3):
        raise InputError(
            f"{path}: expected an ITK displacement field (x, y, z, 1, 3), got shape {shape}."
        )
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            vectors = np.asarray(image.dataobj, np.float32)[:, :, :, 0]
    except UNREADABLE as error:
        raise InputError(f"{path}: not readable as a field ({first_line(error)}).") from error
    affine = itk_affine(image)
    check_affine(path, affine)
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: expected finite displacements, got NaN or infinity.")
    return Field(vectors * LPS, affine)


def write_field(path: Path | str, field: Field) -> None:
    """Write a field as ITK vector NIfTI (.nii or .nii.gz), the same bytes every time.

    Raises:
        InputError: the grid's axes are not orthogonal, which ITK cannot express.
    """
    sheared = shear(field.affine)
    if sheared > SHEAR:
        raise InputError(
            f"{path}: expected a grid with orthogonal axes, as ITK fields have, got a cosine of "
            f"{sheared:.3g} between two axes; resample the image first."
        )
    shape = (*field.vectors.shape[:3], 1, 3)
    write_vectors(path, field, shape=shape, intent="vector", signs=LPS)


def write_vectors(
    path: Path | str,
    field: Field,
    *,
    shape: tuple[int, ...],
    intent: str,
    signs: Float[np.ndarray, "3"],
) -> None:
    """Write a field's vectors times signs as float32 NIfTI-1 of a shape and an intent, in mm.

    Slice by slice, component by component, as the file has them: no second field is held.
    """
    nothing = np.broadcast_to(np.float32(0), shape)
    image = Nifti1Image(nothing, field.affine)
    image.set_sform(field.affine, code=2)
    image.set_qform(field.affine, code=2)
    image.header.set_intent(intent)
    image.header.set_xyzt_units("mm")
    vectors = field.vectors
    slices = itertools.product(range(3), range(vectors.shape[2]))
    save(path, image, parts=(vectors[:, :, k, c] * signs[c] for c, k in slices))
