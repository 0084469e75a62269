"""4-D images (time series), a volume at a time: neither the file read nor the one written is held.

A volume is in RAS order, as `images.read` gives it. The file is read once, from its start to its
end, since a compressed file has no other way.
"""

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

from jaxreg.errors import InputError
from jaxreg.io.compression import packing, unpacking
from jaxreg.io.header_checks import SPARE_BYTES, far_longer
from jaxreg.io.images import check_finite
from jaxreg.io.itk_geometry import itk_affine
from jaxreg.io.stored_images import (
    UNREADABLE,
    MemoryImage,
    Source,
    StoredImage,
    damaged,
    image_in,
    open_image,
    quiet,
)

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

    stored: StoredImage
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
        with _open(self.stored) as (stream, image):
            turn = io_orientation(itk_affine(image))
            for number in range(self.count):
                array = _volume(self.stored, image, number)
                check_finite(self.stored, array)
                yield apply_orientation(array, turn)
            voxels = self.count * int(np.prod(self.shape))
            _check_end(self.stored, stream, voxels * image.get_data_dtype().itemsize)


def read_series(path: Source) -> Series | None:
    """The series in a 4-D file; None where the file holds a single volume.

    Raises:
        InputError: a file that cannot be read, or whose fourth or fifth axis holds the components
            of vectors, tensors or colours: moving these would have to turn them as well.
    """
    stored = open_image(path)
    image = stored.image
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
        stored,
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
            file = stack.enter_context(packing(file))
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
            f"{series.stored}: expected at most {_LONGEST_AXIS:,} volumes, got {series.count:,}."
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
def _open(stored: StoredImage) -> Iterator[tuple[Any, Any]]:
    """(stream, the image in it), whose voxels are read from the stream while it stays open."""
    source = stored.path
    if isinstance(source, MemoryImage):
        stream = io.BytesIO(source.data)
        yield stream, Nifti1Image.from_stream(stream)
        return
    with open(source, "rb") as file:
        stream: Any = unpacking(file) if stored.compressed else file
        try:
            with quiet():
                image = image_in(source, stream)
        except UNREADABLE as error:
            raise damaged(source, error) from error
        yield stream, image


def _check_end(stored: StoredImage, stream: Any, promised: int) -> None:
    """Read a compressed file to its checksum, which nibabel does not; any other passes.

    Raises:
        InputError: it is damaged, or goes on far beyond the `promised` bytes.
    """
    left = SPARE_BYTES
    try:
        while stored.compressed and (count := len(stream.read(1 << 20))):
            left -= count
            if left < 0:
                assert isinstance(stored.path, Path)
                raise far_longer(stored.path, promised)
    except UNREADABLE as error:
        raise damaged(stored, error) from error


def _volume(stored: StoredImage, image: Any, number: int) -> np.ndarray:
    try:
        with quiet():
            return np.asarray(image.dataobj[:, :, :, number]).reshape(image.shape[:3])
    except UNREADABLE as error:
        raise damaged(stored, error) from error
