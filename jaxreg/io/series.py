"""4-D images (time series), a volume at a time: neither the file read nor the one written is held.

A volume is in RAS order, as `images.read` gives it. The file is read once, from its start to its
end, since a compressed file has no other way.
"""

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from jaxreg.errors import InputError, first_line
from jaxreg.io.header_checks import check_gzip, is_compressed
from jaxreg.io.images import (
    UNREADABLE,
    MemoryImage,
    Source,
    check_finite,
    image_in,
    open_image,
    quiet,
)
from jaxreg.io.itk_geometry import itk_affine

_VECTORS = frozenset({*range(1004, 1011), 2003, 2004, *range(2006, 2010), *range(2016, 2019)})
"""NIfTI's intents of tensors, vectors, colours and the fields of FSL: no series of images."""
_TIME_UNITS = 0x38
"""The bits of NIfTI's xyzt_units that name the unit of the fourth axis."""
_MILLISECONDS = 16
_HEADER_BYTES = 352
_LONGEST_AXIS = np.iinfo(np.int16).max


class Timing(NamedTuple):
    """The fourth axis in a header: its step, NIfTI's code of its unit, and where it starts."""

    step: float
    unit: int
    start: float = 0.0


class Series(NamedTuple):
    """A 4-D image whose header alone was read; `affine` and `shape` are those of a volume in RAS.

    `slope` is the scale factor of the header.
    """

    path: Source
    affine: Float[np.ndarray, "4 4"]
    shape: tuple[int, int, int]
    count: int
    timing: Timing
    slope: float

    def volumes(self) -> Iterator[Shaped[np.ndarray, "x y z"]]:
        """Every volume's array in turn, scaled as the header says.

        Raises:
            InputError: a truncated or damaged file, values that are not finite.
        """
        itemsize = 0
        with _open(self.path) as image:
            turn = io_orientation(itk_affine(image))
            itemsize = image.get_data_dtype().itemsize
            for number in range(self.count):
                array = _volume(self.path, image, number)
                check_finite(self.path, array)
                yield apply_orientation(array, turn)
        if not isinstance(self.path, MemoryImage):
            try:
                check_gzip(self.path, self.count * int(np.prod(self.shape)) * itemsize)
            except UNREADABLE as error:
                raise _damaged(self.path, error) from error


def read_series(path: Source) -> Series | None:
    """The series in a 4-D file; None where the file holds a single volume.

    Raises:
        InputError: a file that cannot be read, or whose fourth or fifth axis holds the components
            of vectors, tensors or colours: moving these would have to turn them as well.
    """
    image = open_image(path)
    shape = [int(n) for n in image.shape]
    intent = int(image.header["intent_code"]) if isinstance(image.header, Nifti1Header) else 0
    several = len(shape) > 3 and any(n != 1 for n in shape[3:])
    if several and (intent in _VECTORS or any(n != 1 for n in shape[4:])):
        raise InputError(
            f"{path}: expected a 3-D image or a 4-D series of images, got vectors or tensors "
            f"(shape {tuple(shape)}, intent {intent}); moving them would have to turn them as well."
        )
    if not several:
        return None
    affine = itk_affine(image)
    turn = io_orientation(affine)
    x, y, z = (int(n) for n in np.array(shape[:3])[np.argsort(turn[:, 0])])
    return Series(
        path,
        affine @ inv_ornt_aff(turn, tuple(shape[:3])),
        (x, y, z),
        shape[3],
        _timing(image),
        float(getattr(image.dataobj, "slope", 1.0)),
    )


def write_series(
    path: Path | str,
    volumes: Iterable[Shaped[np.ndarray, "x y z"]],
    shape: tuple[int, int, int, int],
    like: Nifti1Image,
) -> None:
    """Write volumes of one type as they come, as `images.save` writes a NIfTI-1 image.

    Geometry, type of the voxels and timing are those of `like`, whose own voxels do not matter.
    """
    start = like.to_bytes()[:_HEADER_BYTES]
    header = Nifti1Header(start[: Nifti1Header.sizeof_hdr])
    header.set_data_shape(shape)
    with ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "wb"))
        if str(path).endswith(".gz"):
            packed = gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)
            file = stack.enter_context(packed)
        file.write(header.binaryblock + start[Nifti1Header.sizeof_hdr :])
        for volume in volumes:
            file.write(volume.tobytes(order="F"))


def timed(image: Nifti1Image, timing: Timing) -> Nifti1Image:
    """A 4-D image, whose header then has this timing."""
    image.header["pixdim"][4] = timing.step
    image.header["xyzt_units"] = (int(image.header["xyzt_units"]) & ~_TIME_UNITS) | timing.unit
    image.header["toffset"] = timing.start
    return image


def check_length(series: Series) -> None:
    """Raise InputError where NIfTI-1 cannot hold as many volumes as a series has."""
    if series.count > _LONGEST_AXIS:
        raise InputError(
            f"{series.path}: expected at most {_LONGEST_AXIS:,} volumes, got {series.count:,}."
        )


def _timing(image: Any) -> Timing:
    header = image.header
    if isinstance(header, MGHHeader):
        return _usable(Timing(float(header["tr"]), _MILLISECONDS))
    unit = int(header["xyzt_units"]) & _TIME_UNITS
    return _usable(Timing(float(header["pixdim"][4]), unit, float(header["toffset"])))


def _usable(timing: Timing) -> Timing:
    """A timing without numbers that are none, which stand for an unknown one: 0."""
    step = timing.step if np.isfinite(timing.step) and timing.step > 0 else 0.0
    return Timing(step, timing.unit, timing.start if np.isfinite(timing.start) else 0.0)


@contextmanager
def _open(path: Source) -> Iterator[Any]:
    """The image in a file, whose voxels are read from it while it stays open."""
    if isinstance(path, MemoryImage):
        yield Nifti1Image.from_stream(io.BytesIO(path.data))
        return
    with gzip.open(path) if is_compressed(path) else open(path, "rb") as stream:
        try:
            with quiet():
                image = image_in(path, stream)
        except UNREADABLE as error:
            raise _damaged(path, error) from error
        yield image


def _volume(path: Source, image: Any, number: int) -> np.ndarray:
    try:
        with quiet():
            return np.asarray(image.dataobj[:, :, :, number]).reshape(image.shape[:3])
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _damaged(path: Source, error: BaseException) -> InputError:
    return InputError(f"{path}: truncated or damaged ({first_line(error)}).")
