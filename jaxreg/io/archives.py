"""What reading a damaged archive raises: `.npz` files of NumPy, which are zip files."""

import lzma
import struct
import zipfile
import zlib

DAMAGED_ARCHIVE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,  # the packed data
    lzma.LZMAError,
    struct.error,  # a header
    NotImplementedError,  # a way of packing that there is not
    RuntimeError,  # a mark that says it is encrypted
    EOFError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
)
