"""The geometry of a NIfTI header as ITK reads it, which is not always how nibabel does.

jaxreg promises its warps to ITK (ANTs, SimpleITK), so the geometry that ITK reads is the one used.
The two differ where sform and qform disagree and ITK prefers the qform, where neither is set, and
where the header's unit is not the millimetre.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.spatialimages import HeaderDataError

from jaxreg.geometry.field import SHEAR, shear

LPS_MATRIX = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS to LPS millimetres, and back: it is its own inverse."""
UNAMBIGUOUS_MM = 0.01
"""Forms that lie closer together, at every corner of the grid, are the same."""


def itk_affine(image: Any) -> Float[np.ndarray, "4 4"]:
    """The affine of an image's voxel indices to RAS millimetres as ITK reads it.

    That of nibabel where ITK would read the same, for formats that ITK does not read, and for
    sheared or singular axes, which ITK changes without a word.
    """
    affine = np.asarray(image.affine, np.float64)
    if not isinstance(image.header, Nifti1Header):  # NIfTI-2 headers are of this class too
        return affine
    if not _expressible(affine) or not _ambiguous(image.header, affine, image.shape[:3]):
        return affine
    found = _read_by_itk(image.header, affine)
    return affine if found is None or not _expressible(found) else found


def usable_qform(header: Any) -> tuple[np.ndarray | None, int]:
    """(qform, its code) of a NIfTI header; (None, 0) where it has none, or none that is usable."""
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused below
            qform, code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        return None, 0
    if qform is None or not np.isfinite(qform).all():
        return None, 0
    if abs(np.linalg.det(qform[:3, :3])) < 1e-9:
        return None, 0
    return qform, int(code)


def forms_apart(
    sform: Float[np.ndarray, "4 4"], qform: Float[np.ndarray, "4 4"], shape: tuple[int, ...]
) -> tuple[float, float]:
    """(mm, degrees) between two affines: the worst corner of the grid, and the worst axis."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    there = [form[:3, :3] @ corners + form[:3, 3:] for form in (sform, qform)]
    axes = [f[:3, :3] / np.linalg.norm(f[:3, :3], axis=0) for f in (sform, qform)]
    cosines = np.clip((axes[0] * axes[1]).sum(axis=0), -1, 1)
    apart_mm = np.linalg.norm(there[0] - there[1], axis=0).max()
    return float(apart_mm), float(np.degrees(np.arccos(cosines)).max())


def unit_of(header: Any) -> str:
    """The unit of length in a NIfTI header; a code that is none counts as unknown."""
    try:
        return header.get_xyzt_units()[0]
    except KeyError:
        return "unknown"


def _ambiguous(header: Any, affine: np.ndarray, shape: tuple[int, ...]) -> bool:
    if unit_of(header) not in ("mm", "unknown"):
        return True
    sform, (qform, _) = header.get_sform(coded=True)[0], usable_qform(header)
    if sform is None and qform is None:
        return True
    forms = [form for form in (sform, qform) if form is not None]
    return any(forms_apart(affine, form, shape)[0] > UNAMBIGUOUS_MM for form in forms)


def _expressible(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all() or not np.linalg.norm(affine[:3, :3], axis=0).all():
        return False
    return bool(shear(affine) <= SHEAR and abs(np.linalg.det(affine[:3, :3])) > 0)


def _read_by_itk(header: Any, affine: np.ndarray) -> np.ndarray | None:
    """What SimpleITK reads from a small file with a header's geometry; None if it reads nothing."""
    import SimpleITK as sitk  # where it is needed: few headers are ambiguous, and it loads slowly

    small = Nifti1Image(np.zeros((2, 2, 2), np.uint8), affine)
    sform, code = header.get_sform(coded=True)
    small.set_sform(sform, code=int(code))
    qform, code = usable_qform(header)
    small.set_qform(qform, code=int(code))
    small.header["pixdim"][1:4] = header["pixdim"][1:4]
    small.header.set_xyzt_units(unit_of(header))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "geometry.nii"
        small.to_filename(path)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        shown = reader.GetGlobalWarningDisplay()
        reader.SetGlobalWarningDisplay(False)  # of scales that contradict each other
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
        finally:
            reader.SetGlobalWarningDisplay(shown)
    found = np.eye(4)
    found[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    found[:3, 3] = reader.GetOrigin()
    return LPS_MATRIX @ found
