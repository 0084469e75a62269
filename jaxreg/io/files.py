"""What a path names, in words for the user where it is not the file that is expected."""

import os
import stat
from pathlib import Path

from jaxreg.errors import InputError

TO_NIFTI = "convert it to NIfTI first, for example with dcm2niix"
_DICOM_AT = 128
_LOOKED_AT = 20
"""So many files of a folder are opened to see whether they are DICOM files."""


def is_file(path: Path | str) -> bool:
    """Whether a path names a file; a path that no file can have does not."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def require_file(path: Path | str) -> None:
    """Raise InputError unless a path names a file; the message says what it names instead."""
    if not is_file(path):
        raise InputError(f"{path}: {_what_it_is(Path(path)) if str(path) else 'no such file.'}")


def shows_dicom(start: bytes) -> bool:
    """Whether the first bytes of a file, 132 or more, have the mark of DICOM after its preamble."""
    return start[_DICOM_AT : _DICOM_AT + 4] == b"DICM"


def is_dicom(path: Path | str) -> bool:
    """Whether a file that can be read has the mark of DICOM."""
    try:
        with open(path, "rb") as file:
            return shows_dicom(file.read(_DICOM_AT + 4))
    except OSError:
        return False


def _what_it_is(path: Path) -> str:
    """Why a path is not the file that is expected."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if os.path.islink(path):
            return f"no such file; it is a link to {os.readlink(path)}, which does not exist."
        if isinstance(error, PermissionError):
            return "not readable (Permission denied)."
        return "no such file."
    if not stat.S_ISDIR(mode):
        return "expected a file, got a pipe or a device."
    if _holds_dicom(path):
        return f"expected a file, got a folder of DICOM files; {TO_NIFTI}."
    return "expected a file, got a folder."


def _holds_dicom(folder: Path) -> bool:
    """Whether one of the first files in a folder, or one level below it, is a DICOM file."""
    try:
        below = sorted(folder.iterdir())
        for inner in [p for p in below if p.is_dir()][:_LOOKED_AT]:
            below += sorted(inner.iterdir())[:_LOOKED_AT]
    except OSError:
        return False
    return any(is_dicom(p) for p in [p for p in below if is_file(p)][:_LOOKED_AT])
