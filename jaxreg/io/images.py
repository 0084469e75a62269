"""Volumes: NIfTI and MGZ files ↔ RAS arrays. nibabel is used in this package alone.

A file's array is reoriented to RAS+ (axis 0 to the right, 1 to the front, 2 up) when it is read;
`affine` maps its voxel indices to RAS millimetres, as ITK reads them (`itk_geometry`).
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from nibabel.funcs import as_closest_canonical
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike

from jaxreg.errors import InputError, first_line
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.io.compression import packing
from jaxreg.io.flatness import refuse_image
from jaxreg.io.itk_geometry import itk_affine, unit_of, usable_qform
from jaxreg.io.stored_images import (
    UNREADABLE,
    MemoryImage,
    Source,
    StoredImage,
    damaged,
    open_image,
    quiet,
)

NIFTI = (".nii", ".nii.gz")
Remark = Callable[[str], object]
"""Gets a sentence on what was unusual in a file and is accepted all the same."""
LABEL_OFF = 0.01
"""How far labels may lie off whole numbers."""
_EXACT = 1e-6
"""Up to here without a remark: a scale in float32 makes 1.00000006 of 1."""
_COARSEST_SCALE = 0.4
"""Of a larger scale factor, half a step does not tell which whole number was meant."""
_OVERSHOOT = 0.1
"""How far a soft mask may leave [0, 1], as after resampling with splines."""


def unheard(line: str) -> None:
    """Where nobody is told of remarks."""


if TYPE_CHECKING:
    ImageLike = str | Path | SpatialImage | tuple[ArrayLike, ArrayLike]
else:
    ImageLike = Any  # what it is, is checked where it is read, with words for the user


class FileGeometry(NamedTuple):
    """Where a file says that its voxels lie: nibabel's affine, and the header with its forms."""

    affine: Float[np.ndarray, "4 4"]
    header: Any


def source_of(image: ImageLike, name: str) -> Path | MemoryImage:
    """Where to read an image that is a path, a nibabel image or (array, affine).

    Raises:
        InputError: it is none of these, or NIfTI-1 cannot hold it.
    """
    if isinstance(image, str | Path):
        return Path(image)
    if isinstance(image, MemoryImage):
        return image
    if isinstance(image, tuple | list):
        return MemoryImage(name, _image_of_array(image, name).to_bytes())
    try:
        return MemoryImage(name, Nifti1Image.from_image(image).to_bytes())
    except (*UNREADABLE, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"{name}: expected a path, a NIfTI image or (array, affine), got "
            f"{type(image).__name__} ({first_line(error)})."
        ) from error


def _image_of_array(pair: Any, name: str) -> Nifti1Image:
    """The image of (array, affine); whole numbers become int32, all others float32."""
    try:
        array, affine = (np.asarray(part) for part in pair)
        if affine.shape != (4, 4):
            raise ValueError(f"an affine of shape {affine.shape}")
        kinds = {"b": np.uint8, "i": np.int32, "u": np.int32}
        if array.dtype.kind in "cSUMm":  # bfloat16, which JAX has, is of the kind V
            raise ValueError(f"voxels of the type {array.dtype}, which are no real numbers")
        limits = np.iinfo(np.int32)
        if array.dtype.kind in "iu" and array.size:
            for value in (int(array.min()), int(array.max())):
                if not limits.min <= value <= limits.max:
                    raise ValueError(f"whole numbers beyond int32, such as {value}")
        array = array.astype(kinds.get(array.dtype.kind, np.float32))
        return image_of(Volume(array, affine.astype(np.float64)))
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: expected (array, affine), got {error}.") from error


def read(path: Source) -> Volume:
    """The 3-D volume in a file, RAS+; intensities are scaled as the header says.

    Raises:
        InputError: no such file, unreadable or truncated, not 3-D, an unusable affine, NaN, or
            voxels that are not real numbers.
    """
    return _read(path)[0]


def _read(path: Source) -> tuple[Volume, float]:
    """As `read`, with the scale factor of the header."""
    image = open_volume(path).image
    slope = float(getattr(image.dataobj, "slope", 1.0))
    try:
        with quiet():
            image = as_closest_canonical(_placed(image))
            array = np.asarray(image.dataobj)
            array = array.reshape(array.shape[:3])  # further axes have one entry each
    except UNREADABLE as error:
        raise damaged(path, error) from error
    check_finite(path, array)
    return Volume(array, np.asarray(image.affine, np.float64)), slope


def check_finite(path: Source, array: np.ndarray) -> None:
    """Raise InputError where a file's voxels are not all finite numbers."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int(np.size(array) - np.isfinite(array).sum())
        raise InputError(f"{path}: expected finite values, got {count} NaN or infinite voxels.")


def _placed(image: Any) -> Any:
    """An image that nibabel takes to lie where ITK does."""
    affine = itk_affine(image)
    if np.array_equal(affine, image.affine):
        return image
    return type(image)(image.dataobj, affine, image.header)


def read_image(path: Source) -> Volume:
    """A volume of intensities as float32; a constant one is refused."""
    array, affine = read(path)
    if array.min() == array.max():
        raise InputError(f"{path}: expected an image, got the constant {array.flat[0]}.")
    return Volume(as_intensities(path, array), affine)


def as_intensities(path: Source, array: Shaped[np.ndarray, "x y z"]) -> np.ndarray:
    """An array of a file as float32.

    Raises:
        InputError: values beyond float32.
    """
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise InputError(f"{path}: expected values in the range of float32, got {array.max():g}.")
    return single


def read_labels(path: Source, *, remark: Remark = unheard) -> Volume:
    """A volume of integer labels as int32.

    Values within 0.01 of whole numbers are rounded, as are those that the scale factor of the
    header moved off them. `remark` then gets a sentence. All other values are refused.

    Raises:
        InputError: as for `read`; a value that is no label; what looks like an image.
    """
    return as_labels(path, *_read(path), remark)


def as_labels(path: Source, volume: Volume, slope: float, remark: Remark) -> Volume:
    """The labels in a volume of which the header's scale factor is known, as `read_labels` says."""
    array, affine = volume
    whole = np.rint(array)
    off = np.abs(whole - array)
    worst = float(array.flat[int(np.argmax(off))])
    half_a_step = 0.501 * abs(slope) if abs(slope) < _COARSEST_SCALE else 0.0
    if off.max() > max(LABEL_OFF, half_a_step):
        raise InputError(f"{path}: expected integer labels, got values such as {worst:g}.")
    if off.max() > _EXACT:
        remark(f"{path}: labels such as {worst:.7g} are rounded to whole numbers")
    refuse_image(path, whole)
    if max(abs(float(whole.min())), abs(float(whole.max()))) > np.iinfo(np.int32).max:
        raise InputError(f"{path}: expected labels in the range of int32, got {whole.max():g}.")
    return Volume(whole.astype(np.int32), affine)


def read_mask(path: Source, *, remark: Remark = unheard) -> Volume:
    """A mask as booleans: every voxel but 0, and of a soft mask (0 … 1) those of 0.5 and more.

    Raises:
        InputError: as for `read`; values that are neither labels nor a soft mask; what looks like
            an image.
    """
    volume, slope = _read(path)
    array, affine = volume
    if np.abs(np.rint(array) - array).max() <= LABEL_OFF:
        return Volume(as_labels(path, volume, slope, remark).array != 0, affine)
    low, high = float(array.min()), float(array.max())
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise InputError(
            f"{path}: expected a mask of whole numbers, or a soft one with values from 0 to 1; "
            f"got {low:g} to {high:g}."
        )
    remark(f"{path}: a soft mask; voxels of 0.5 and more are taken")
    return Volume(array >= 0.5, affine)


def read_grid(path: Source, *, series: bool = False) -> Grid:
    """The grid that a file stores, axes in the file's own order (not RAS+).

    Of a 4-D image, where `series` admits one, it is that of each volume.
    """
    image = open_volume(path, series=series).image
    x, y, z = image.shape[:3]
    return Grid((int(x), int(y), int(z)), itk_affine(image))


def reordered(volume: Volume, grid: Grid) -> Shaped[np.ndarray, "x y z"]:
    """A volume's array in the axis order of a grid that has the same voxels, such as its file's."""
    here, there = (io_orientation(affine) for affine in (volume.affine, grid.affine))
    return apply_orientation(volume.array, ornt_transform(here, there))


def write(path: Path | str, volume: Volume, *, dtype: Any = None) -> None:
    """Write a volume as NIfTI-1 (sform and qform both set), as `dtype` or the array's own.

    The bytes depend on nothing but the contents: no time stamp, no file name in the gzip header.
    """
    save(path, image_of(Volume(np.asarray(volume.array, dtype), volume.affine)))


def image_of(volume: Volume) -> Nifti1Image:
    """A NIfTI-1 image of a volume, sform and qform both set."""
    image = Nifti1Image(volume.array, volume.affine)
    image.set_sform(volume.affine, code=2)
    image.set_qform(volume.affine, code=2)
    image.header.set_xyzt_units("mm")
    return image


def write_like(path: Path | str, array: Shaped[np.ndarray, "x y z"], like: FileGeometry) -> None:
    """Write an array on the stored grid of another file as NIfTI-1, with the codes it has there."""
    save(path, image_like(array, like))


def image_like(array: Shaped[np.ndarray, "x y z *t"], like: FileGeometry) -> Nifti1Image:
    """A NIfTI-1 image on the stored grid of another file, with the codes it has there."""
    image = Nifti1Image(array, like.affine)
    forms = isinstance(like.header, Nifti1Header)  # NIfTI-2 headers are of this class too
    sform, code = like.header.get_sform(coded=True) if forms else (like.affine, 2)
    image.set_sform(sform, code=int(code))
    qform, code = usable_qform(like.header) if forms else (like.affine, 2)
    image.set_qform(qform, code=int(code))
    unit = unit_of(like.header) if forms else "mm"
    image.header.set_xyzt_units("mm" if unit == "unknown" else unit)
    if forms and sform is None and qform is None:  # only the voxel sizes are known
        image.header["pixdim"][1:4] = like.header["pixdim"][1:4]
    return image


def save(
    path: Path | str, image: Nifti1Image, *, parts: Iterable[np.ndarray] | None = None
) -> None:
    """Write a NIfTI-1 image, compressed where the name ends in .gz; the same bytes every time.

    It is written in pieces: the bytes of a warp are many, and several files are written at once.
    `parts` stand in for the image's own array: one after the other, the first axis fastest, they
    fill its shape with its type.
    """
    path = Path(path)
    with path.open("wb") as file, contextlib.ExitStack() as packed:
        stream = packed.enter_context(packing(file)) if path.name.endswith(".gz") else file
        if parts is None:
            image.to_stream(stream)
            return
        image.update_header()
        image.header.set_slope_inter(1, 0)
        image.header.write_to(stream)
        for part in parts:
            stream.write(part.astype(image.get_data_dtype(), copy=False).tobytes(order="F"))


def smallest_labels(labels: Int[np.ndarray, "..."]) -> np.ndarray:
    """Labels in the smallest type of NIfTI that holds them; int16 before uint16."""
    low, high = labels.min(initial=0), labels.max(initial=0)
    for dtype in (np.uint8, np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return labels.astype(dtype)
    return labels


def open_volume(path: Source, *, series: bool = False) -> StoredImage:
    """An opened 3-D image with a usable affine; 4-D only where `series` admits it.

    Raises:
        InputError: as for `open_image`, or another shape, or no usable affine.
    """
    stored = open_image(path)
    shape = tuple(int(n) for n in stored.image.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[4 if series else 3 :]):
        wanted = "a 3-D image or a 4-D series" if series else "a 3-D volume"
        raise InputError(f"{path}: expected {wanted}, got shape {shape}.")
    check_affine(path, itk_affine(stored.image))
    return stored


def check_affine(path: Source, affine: np.ndarray) -> None:
    """Raise InputError unless a file's affine is finite and invertible."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: expected an invertible affine, got {affine.tolist()}.")
