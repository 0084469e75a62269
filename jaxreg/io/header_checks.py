"""What the header of a NIfTI or MGZ file promises, against what the file can hold.

A few bytes can promise terabytes: these checks come before anything of that size is reserved or
decompressed. Deflate packs 1032 bytes into one at the very best, brains about 10 and masks some
hundreds.
"""

import math
import struct
from pathlib import Path

from jaxreg.errors import InputError
from jaxreg.io.files import TO_NIFTI, shows_dicom

SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz")
START_BYTES = 540
"""The longest header, that of NIfTI-2."""
SPARE_BYTES = 128 << 20
"""More than header extensions and what a program appends to the voxels need."""
_DEFLATE = 1032
_FREE_BYTES = 1 << 30
"""Up to here (512³ float64) a compressed file may be as small as it likes."""
_VOXELS_PER_BYTE = 100
"""Beyond it, a smaller file than this many voxels a byte is not believed."""
_EXTENSION_BYTES = 64 << 20
"""More than any header extension needs."""
_MGH_BYTES = {0: 1, 1: 4, 3: 4, 4: 2}
"""Bytes a voxel of MGH's types."""
_OTHER_CONTENT = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"GIF8": "a GIF picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"BM": "a BMP picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "a file that bzip2 compressed",
    b"\xfd7zXZ\0": "a file that xz compressed",
    b"(\xb5/\xfd": "a file that zstd compressed",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x89HDF": "an HDF5 file, such as MINC 2 or a transform of ITK",
    b"CDF\x01": "a NetCDF file, such as MINC 1",
    b"NRRD": "an NRRD file",
    b"ObjectType": "a MetaImage header",
    b"#Insight Transform File": "a transform of ITK",
    b"MATLAB": "a file of MATLAB",
    b"<": "a page or a document in HTML or XML",
    b"{": "JSON text",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with git lfs pull",
    b"/annex/objects/": "a pointer of git-annex; fetch the file itself with git annex get",
}
"""What files begin with that are taken for images by their names."""
_TAR_AT = 257


def check_kind(path: Path, start: bytes) -> None:
    """Raise InputError where a file is no image by its first bytes, or none by its name."""
    if not start:
        raise InputError(f"{path}: the file is empty.")
    if shows_dicom(start):
        raise InputError(f"{path}: expected a NIfTI or MGZ file, got a DICOM file; {TO_NIFTI}.")
    _check_content(path, start)
    if not str(path).lower().endswith(SUFFIXES):
        raise InputError(f"{path}: expected a NIfTI or MGZ file ({', '.join(SUFFIXES)}).")


def check_start(path: Path, header: bytes, *, size: int, compressed: bool) -> None:
    """Raise InputError unless `header` starts an MGH file, or a NIfTI file with voxels near it.

    Between header and voxels of NIfTI lie extensions, which a reader takes in before it is asked
    for any voxel. `header` has the first `START_BYTES`, decompressed.
    """
    _check_content(path, header)
    if is_mgh(path):
        _check_mgh(path, header, size=size, compressed=compressed)
        return
    for order in "<>":
        if len(header) >= 352 and struct.unpack_from(f"{order}i", header)[0] == 348:
            offset = struct.unpack_from(f"{order}f", header, 108)[0]
        elif len(header) == START_BYTES and struct.unpack_from(f"{order}i", header)[0] == 540:
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        if not 0 <= offset <= _EXTENSION_BYTES:
            raise InputError(f"{path}: expected voxels right after the header, got {offset:g}.")


def _check_content(path: Path, start: bytes) -> None:
    """Raise InputError where the first bytes, decompressed or not, tell what else a file is."""
    found = [name for mark, name in _OTHER_CONTENT.items() if start.startswith(mark)]
    if start[_TAR_AT : _TAR_AT + 5] == b"ustar":
        found = ["a tar archive; unpack it first"]
    if found:
        raise InputError(f"{path}: this is no NIfTI or MGZ file: it begins like {found[0]}.")


def check_size(path: Path, voxels: int, *, itemsize: int, size: int, compressed: bool) -> None:
    """Raise InputError where a file of `size` bytes cannot hold `voxels` of `itemsize` bytes."""
    promised = voxels * itemsize
    if compressed:
        free = voxels * max(itemsize, 8) <= _FREE_BYTES or voxels <= _VOXELS_PER_BYTE * size
        holds = promised <= _DEFLATE * size and free
    else:
        holds = promised <= size
    if not holds:
        raise InputError(
            f"{path}: not readable, truncated or damaged (it promises {promised:,} bytes, "
            f"the file has {size:,})."
        )


def far_longer(path: Path, promised: int) -> InputError:
    """The error for a file that goes on for `SPARE_BYTES` beyond the `promised` bytes."""
    return InputError(
        f"{path}: the file is far longer than the {promised:,} bytes of voxels that its header "
        "promises."
    )


def is_mgh(path: Path) -> bool:
    """Whether a file has the name of an MGH or MGZ file, whose content does not tell."""
    return str(path).lower().endswith((".mgh", ".mgz"))


def _check_mgh(path: Path, header: bytes, *, size: int, compressed: bool) -> None:
    """Raise InputError unless these are the first bytes of an MGH file that holds its voxels."""
    version, *shape, kind, _ = struct.unpack(">7i", header[:28].ljust(28, b"\0"))
    if len(header) < 284 or version & 0xFF != 1 or min(shape) < 1 or kind not in _MGH_BYTES:
        raise InputError(f"{path}: not readable as NIfTI or MGZ (no MGH header).")
    itemsize = _MGH_BYTES[kind]
    check_size(path, math.prod(shape), itemsize=itemsize, size=size, compressed=compressed)
