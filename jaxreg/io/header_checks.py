"""What the header of a NIfTI or MGZ file promises, against what the file can hold.

A few bytes can promise terabytes: these checks come before anything of that size is reserved or
decompressed. Deflate packs 1032 bytes into one at the very best, brains about 10 and masks some
hundreds.
"""

import gzip
import math
import struct
from pathlib import Path
from typing import Any

from jaxreg.errors import InputError
from jaxreg.io.files import TO_NIFTI, is_dicom

SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz")
_DEFLATE = 1032
_FREE_BYTES = 1 << 30
"""Up to here (512³ float64) a compressed file may be as small as it likes."""
_VOXELS_PER_BYTE = 100
"""Beyond it, a smaller file than this many voxels a byte is not believed."""
_EXTENSION_BYTES = 64 << 20
"""More than any header extension needs."""
_TAIL_BYTES = 64 << 20
"""More bytes than a program appends to the voxels."""
_MGH_BYTES = {0: 1, 1: 4, 3: 4, 4: 2}
"""Bytes a voxel of MGH's types."""


def check_start(path: Path | str) -> None:
    """Raise InputError for another kind of file, or one whose voxels start absurdly late.

    Between header and voxels lie extensions, which a reader takes in before it is asked for any.
    """
    if is_dicom(path):
        raise InputError(f"{path}: expected a NIfTI or MGZ file, got a DICOM file; {TO_NIFTI}.")
    if not str(path).lower().endswith(SUFFIXES):
        raise InputError(f"{path}: expected a NIfTI or MGZ file ({', '.join(SUFFIXES)}).")
    with _opened(path) as file:
        header = file.read(540)
    if str(path).lower().endswith((".mgh", ".mgz")):
        _check_mgh(path, header)
        return
    for order in "<>":
        if len(header) >= 352 and struct.unpack_from(f"{order}i", header)[0] == 348:
            offset = struct.unpack_from(f"{order}f", header, 108)[0]
        elif len(header) == 540 and struct.unpack_from(f"{order}i", header)[0] == 540:
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        if not 0 <= offset <= _EXTENSION_BYTES:
            raise InputError(f"{path}: expected voxels right after the header, got {offset:g}.")


def check_size(path: Path | str, voxels: int, *, itemsize: int) -> None:
    """Raise InputError where a file cannot hold `voxels` of `itemsize` bytes."""
    size, promised = Path(path).stat().st_size, voxels * itemsize
    if is_compressed(path):
        free = voxels * max(itemsize, 8) <= _FREE_BYTES or voxels <= _VOXELS_PER_BYTE * size
        holds = promised <= _DEFLATE * size and free
    else:
        holds = promised <= size
    if not holds:
        raise InputError(
            f"{path}: not readable, truncated or damaged (it promises {promised:,} bytes, "
            f"the file has {size:,})."
        )


def check_gzip(path: Path | str, promised: int) -> None:
    """Read a gzip file to its checksum, which nibabel does not; anything else passes.

    Raises:
        InputError: it goes on far beyond the `promised` bytes.
        OSError, EOFError, zlib.error: it is damaged.
    """
    if not is_compressed(path):
        return
    left = promised + _EXTENSION_BYTES + _TAIL_BYTES
    with gzip.open(path) as file:
        while count := len(file.read(1 << 20)):
            left -= count
            if left < 0:
                raise InputError(
                    f"{path}: the file is far longer than the {promised:,} bytes of voxels that "
                    "its header promises."
                )


def _check_mgh(path: Path | str, header: bytes) -> None:
    """Raise InputError unless these are the first bytes of an MGH file that holds its voxels."""
    version, *shape, kind, _ = struct.unpack(">7i", header[:28].ljust(28, b"\0"))
    if len(header) < 284 or version & 0xFF != 1 or min(shape) < 1 or kind not in _MGH_BYTES:
        raise InputError(f"{path}: not readable as NIfTI or MGZ (no MGH header).")
    check_size(path, math.prod(shape), itemsize=_MGH_BYTES[kind])


def is_compressed(path: Path | str) -> bool:
    """Whether a file starts as gzip does."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def named_as_stored(path: Path | str) -> bool:
    """Whether a file is compressed exactly where its name says so, by .gz or .mgz."""
    return str(path).lower().endswith((".gz", ".mgz")) == is_compressed(path)


def _opened(path: Path | str) -> Any:
    return gzip.open(path) if is_compressed(path) else open(path, "rb")
