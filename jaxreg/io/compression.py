"""gzip by ISA-L, which is several times faster than zlib on both ways; the bytes are gzip's."""

import io
from typing import Any

from isal import igzip, isal_zlib

MAGIC = b"\x1f\x8b"
"""How a gzip file starts."""
_DAMAGED: Any = isal_zlib.error  # its stub declares an instance
UNPACKABLE: tuple[type[Exception], ...] = (EOFError, OSError, _DAMAGED)
"""What reading a damaged gzip file raises."""
_LEVEL = 3
"""The densest: images as small as by zlib's 6, ten times faster."""
_CHUNK_BYTES = 1 << 20


def packed(data: bytes) -> bytes:
    """The gzip file of bytes; the same bytes every time, since it has no time stamp and no name."""
    return igzip.compress(data, _LEVEL, mtime=0)


def packing(file: Any) -> Any:
    """A file object that compresses into `file` what is written to it, as `packed` does."""
    return igzip.IGzipFile("", "wb", compresslevel=_LEVEL, fileobj=file, mtime=0)


def unpacking(file: Any) -> Any:
    """A file object of what the gzip file `file` holds; its checksum is verified at its end."""
    return igzip.IGzipFile(fileobj=file, mode="rb")


def unpacked(data: bytes, limit: int) -> bytes | None:
    """What a gzip file of these bytes holds, verified; None where that exceeds `limit` bytes."""
    stream = unpacking(io.BytesIO(data))
    parts, left = [], limit
    while part := stream.read(_CHUNK_BYTES):
        parts.append(part)
        left -= len(part)
        if left < 0:
            return None
    return b"".join(parts)
