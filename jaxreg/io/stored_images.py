"""Image files opened: once each, checked before they are believed, decompressed once.

What is read of an image afterwards (geometry, voxels, hash, remarks) comes from a `StoredImage`.
"""

import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError, MGHImage
from nibabel.imageglobals import logger
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from jaxreg.errors import InputError, first_line
from jaxreg.io.checksums import bytes_sha256
from jaxreg.io.compression import MAGIC, UNPACKABLE, unpacked, unpacking
from jaxreg.io.files import require_file
from jaxreg.io.header_checks import (
    SPARE_BYTES,
    START_BYTES,
    check_kind,
    check_size,
    check_start,
    far_longer,
    is_mgh,
)

UNREADABLE: tuple[type[Exception], ...] = (
    ImageFileError,
    HeaderDataError,
    *UNPACKABLE,
    zlib.error,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    MGHError,
    OrientationError,
    WrapStructError,
)
"""What reading a damaged file raises."""


class MemoryImage(NamedTuple):
    """An image that no file holds: a name for messages and records, and NIfTI-1 bytes."""

    name: str
    data: bytes

    def __str__(self) -> str:
        """The name, as a path stands in a message."""
        return self.name


class StoredImage(NamedTuple):
    """An image whose header and, but for a series, whole content has been read and checked.

    Attributes:
        path: where it comes from.
        image: nibabel's image, its voxels in memory as they are stored; those of a series, of which
            the header alone was read, are not there.
        start: the first 540 bytes, decompressed.
        compressed: whether the file is compressed with gzip, whatever its name.
        sha256: the hash of the file as it lies there; None of a series.
    """

    path: Path | MemoryImage
    image: Any
    start: bytes
    compressed: bool
    sha256: str | None

    def __str__(self) -> str:
        """The path or name, as it stands in messages."""
        return str(self.path)

    @property
    def named_as_stored(self) -> bool:
        """Whether the file is compressed exactly where its name says so, by .gz or .mgz."""
        if isinstance(self.path, MemoryImage):
            return True
        return str(self.path).lower().endswith((".gz", ".mgz")) == self.compressed


Source = Path | str | MemoryImage | StoredImage
"""Where an image is read from. Of a path each reader opens the file anew; of a `StoredImage` none
does."""


def open_image(path: Source, *, vectors: bool = False) -> StoredImage:
    """Open an image; of more than one volume the header alone is read, unless it holds `vectors`.

    Raises:
        InputError: no such file, no NIfTI or MGZ, voxels that are no real numbers, more of them
            than the file can hold, or a truncated or damaged file.
    """
    if isinstance(path, StoredImage):
        return path
    if isinstance(path, MemoryImage):
        return _in_memory(path)
    require_file(path)
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _read(path, file, vectors=vectors)
    except OSError as error:
        raise _not_readable(path, error) from error


def _in_memory(source: MemoryImage) -> StoredImage:
    try:
        with quiet():
            image = Nifti1Image.from_bytes(source.data)
            _check_voxels(source, image)
    except UNREADABLE as error:
        raise _not_readable(source, error) from error
    return StoredImage(source, image, source.data[:START_BYTES], False, bytes_sha256(source.data))


def _read(path: Path, file: Any, *, vectors: bool) -> StoredImage:
    """The header first, then what it promises, if the file can hold it."""
    size = os.fstat(file.fileno()).st_size
    first = file.read(START_BYTES)
    check_kind(path, first)
    file.seek(0)
    compressed = first.startswith(MAGIC)
    try:
        with quiet():
            stream: Any = unpacking(file) if compressed else file
            start = stream.read(START_BYTES)
            check_start(path, start, size=size, compressed=compressed)
            # what MGH has behind its voxels is read with them
            image = image_in(path, io.BytesIO(start) if is_mgh(path) else stream)
            shape, itemsize = _check_voxels(path, image)
    except UNREADABLE as error:
        raise _not_readable(path, error) from error
    voxels = math.prod(shape)
    check_size(path, voxels, itemsize=itemsize, size=size, compressed=compressed)
    if not vectors and any(n != 1 for n in shape[3:]):
        return StoredImage(path, _series(path, stream, image), start, compressed, None)
    file.seek(0)
    stored = file.read(voxels * itemsize + SPARE_BYTES)
    if len(stored) < size:
        raise far_longer(path, voxels * itemsize)
    try:
        with quiet():
            data = unpacked(stored, voxels * itemsize + SPARE_BYTES) if compressed else stored
            if data is None:
                raise far_longer(path, voxels * itemsize)
            image = image_in(path, io.BytesIO(data))
    except UNREADABLE as error:
        raise damaged(path, error) from error
    return StoredImage(path, image, start, compressed, bytes_sha256(stored))


def _series(path: Path, stream: Any, image: Any) -> Any:
    """The header of a series, of which `image` has all but what MGH keeps behind the voxels."""
    if not is_mgh(path):
        return image
    try:
        return image_in(path, stream)
    except UNREADABLE as error:
        raise damaged(path, error) from error


def image_in(path: Path, stream: Any) -> Any:
    """The image in the decompressed bytes of a file, read from them while they are open."""
    stream.seek(0)
    start = stream.read(4)
    stream.seek(0)
    kind: Any = Nifti2Image if 540 in _as_integers(start) else Nifti1Image
    return (MGHImage if is_mgh(path) else kind).from_stream(stream)


def _as_integers(start: bytes) -> tuple[int, int]:
    return int.from_bytes(start, "little"), int.from_bytes(start, "big")


def _check_voxels(path: Path | MemoryImage, image: Any) -> tuple[tuple[int, ...], int]:
    """(shape, bytes a voxel) of an image.

    Raises:
        InputError: its voxels are no real numbers, or there are none.
    """
    shape, dtype = tuple(map(int, image.shape)), image.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = "colours (RGB)" if dtype.names else "complex numbers" if dtype.kind == "c" else dtype
        raise InputError(f"{path}: expected a number in each voxel, got {kind}.")
    if min(shape, default=0) < 1:
        raise InputError(f"{path}: expected voxels, got shape {shape}.")
    return shape, dtype.itemsize


def _not_readable(path: Path | MemoryImage, error: BaseException) -> InputError:
    return InputError(f"{path}: not readable as NIfTI or MGZ ({first_line(error)}).")


def damaged(path: Source, error: BaseException) -> InputError:
    """The error for a file whose voxels cannot be read."""
    return InputError(f"{path}: truncated or damaged ({first_line(error)}).")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence nibabel's own remarks on a header meanwhile; what matters is raised.

    Of several threads the first one silences them, and the last one restores what was before.
    """
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()


class _Silence:
    """Python's filters of warnings and nibabel's logger belong to the process, not to a thread."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, ExitStack()

    def enter(self) -> None:
        """Silence, unless another thread has."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before.callback(setattr, logger, "disabled", logger.disabled)
                logger.disabled = True
                self._before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore", RuntimeWarning)  # infinite numbers, refused later
                warnings.simplefilter("ignore", UserWarning)  # an extension of an odd size

    def leave(self) -> None:
        """Restore what was before, unless another thread still reads."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.close()


_SILENCE = _Silence()
