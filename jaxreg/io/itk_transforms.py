"""ITK transform files, and ITK transforms ↔ RAS matrices.

ITK's world is LPS millimetres; a matrix here is 4×4, float64, RAS millimetres. Both pull back: they
map points of the fixed space to the moving space.
"""

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.transforms import affine_points
from jaxreg.io.displacement_fields import LPS
from jaxreg.io.files import require_file
from jaxreg.io.itk_geometry import LPS_MATRIX

_DEEPEST = 16
"""Composites within composites; deeper ones are no transform that a program writes."""
_PROBE = """
import sys
import SimpleITK
try:
    import resource
except ImportError:
    SimpleITK.ReadTransform(sys.argv[1])
    sys.exit()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
limit = int(sys.argv[2]) if hard < 0 else min(int(sys.argv[2]), hard)
resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
seconds = int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
resource.setrlimit(resource.RLIMIT_CPU, (seconds if hard < 0 else min(seconds, hard), hard))
SimpleITK.ReadTransform(sys.argv[1])
"""


def write_affine(path: Path | str, matrix: Float[np.ndarray, "4 4"]) -> None:
    """Write a RAS matrix as ITK's AffineTransform_double_3_3 (.mat, .tfm or .txt), centre 0."""
    sitk.WriteTransform(itk_affine(sitk.AffineTransform(3), matrix, np.zeros(3)), str(path))


def read_transform(path: Path | str) -> list[np.ndarray | Field]:
    """The chain (first element first on points of the fixed space) in an ITK transform file.

    Affine and rigid transforms of any kind (.mat, .tfm, .txt, .xfm), and .h5 composites with
    displacement fields as fMRIPrep and ANTs write them.

    Raises:
        InputError: no such file, no ITK transform, or a kind that is neither affine nor a field.
    """
    require_file(path)
    if str(path).endswith(".mat"):
        _check_matlab(path)
    if str(path).endswith((".h5", ".hdf5")):
        _check_hdf5(path)
    try:
        transform = sitk.ReadTransform(str(path))
    except (RuntimeError, ValueError) as error:  # ValueError: text that is no UTF-8
        reason = ([line for line in str(error).splitlines() if line.strip()] or ["?"])[-1].strip()
        raise InputError(f"{path}: not readable as an ITK transform ({reason}).") from error
    if transform.GetDimension() != 3:
        raise InputError(f"{path}: expected a 3-D transform, got {transform.GetDimension()}-D.")
    return list(_elements(path, transform, _DEEPEST))


def itk_affine(
    transform: Any, matrix: np.ndarray, centre: np.ndarray, *, frame: np.ndarray = LPS_MATRIX
) -> Any:
    """`transform` (Euler or affine) set to a RAS matrix about a RAS centre."""
    there = frame @ matrix @ np.linalg.inv(frame)
    at = affine_points(frame, centre[None])[0]
    transform.SetCenter(at.tolist())
    transform.SetMatrix(there[:3, :3].ravel().tolist())
    transform.SetTranslation((there[:3, :3] @ at + there[:3, 3] - at).tolist())
    return transform


def ras_matrix(transform: Any, *, frame: np.ndarray = LPS_MATRIX) -> np.ndarray:
    """The RAS matrix of a linear ITK transform, whatever its centre: from where it takes points."""
    origin = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for k, unit in enumerate(np.eye(3)):
        matrix[:3, k] = np.asarray(transform.TransformPoint(tuple(unit.tolist()))) - origin
    matrix[:3, 3] = origin
    return np.linalg.inv(frame) @ matrix @ frame


def _elements(path: Path | str, transform: Any, depth: int) -> Iterator[np.ndarray | Field]:
    """The parts of an ITK transform; in a composite the last one acts first.

    Whether a transform is linear is asked first: SimpleITK calls any kind that it does not know,
    such as MatrixOffsetTransformBase, a composite, whose only part is itself.
    """
    if transform.IsLinear():
        matrix = ras_matrix(transform)
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise InputError(f"{path}: expected an invertible affine, got {matrix.tolist()}.")
        yield matrix
        return
    transform = transform.Downcast()
    if isinstance(transform, sitk.CompositeTransform) and depth > 0:
        for n in reversed(range(transform.GetNumberOfTransforms())):
            yield from _elements(path, transform.GetNthTransform(n), depth - 1)
    elif isinstance(transform, sitk.DisplacementFieldTransform):
        image = transform.GetDisplacementField()
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            vectors = sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3).astype(np.float32) * LPS
        affine = _grid_affine(image)
        if not np.isfinite(vectors).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise InputError(f"{path}: expected finite displacements on a grid, got others.")
        yield Field(vectors, affine)
    else:
        raise InputError(
            f"{path}: expected affines or displacement fields, got {transform.GetName()}."
        )


def _grid_affine(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_MATRIX @ affine


def _check_hdf5(path: Path | str) -> None:
    """Raise InputError unless another process can read an HDF5 file in bounded memory and time.

    On some damaged files the HDF5 library ends the process, or reserves what a few bytes promise.
    """
    size = Path(path).stat().st_size
    memory, seconds = (2 << 30) + 16 * size, 5 + size // 10**7
    probe = [sys.executable, "-c", _PROBE, str(path), str(memory), str(seconds)]
    try:
        done = subprocess.run(
            probe,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=10 * seconds,  # where the system limits no processor time
        )
    except subprocess.TimeoutExpired as error:
        reason = "it takes too long"
        raise InputError(f"{path}: not readable as an ITK transform ({reason}).") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if done.returncode > 0 and lines else "damaged"
        raise InputError(f"{path}: not readable as an ITK transform ({reason}).")


def _check_matlab(path: Path | str) -> None:
    """Raise InputError unless a .mat file is as long as the matrices that it announces.

    ITK reserves what a damaged header asks for, and the process is killed for its memory.
    """
    data, at = Path(path).read_bytes(), 0
    while at < len(data):
        header = data[at : at + 20]
        kind, rows, columns, _, name = struct.unpack("<5i", header.ljust(20, b"\0"))
        if kind not in (0, 10) or min(rows, columns, name) < 1 or max(rows, columns) > 1000:
            at = -1
            break
        at += 20 + name + rows * columns * (4 if kind == 10 else 8)
    if at != len(data) or not data:
        raise InputError(
            f"{path}: not readable as an ITK transform (no Matlab file as ITK writes it; "
            "FSL's text matrices need converting)."
        )
