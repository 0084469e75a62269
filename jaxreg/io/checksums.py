"""SHA-256 of files; of a folder, as its last file, which is checked before the folder is used.

`SHA256SUMS` has the form of coreutils: `sha256sum -c SHA256SUMS` in the folder checks it too.
"""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"


def seal(folder: Path) -> None:
    """Write `SHA256SUMS` over every file in and below a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    lines = [f"{file_sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def mismatch(folder: Path) -> str | None:
    """The first file of a folder that is missing or not as it was sealed, in words.

    None where all are as they were. Files that were added later do not count.
    """
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (OSError, UnicodeDecodeError) as error:
        return f"{NAME} is not readable ({error})"
    for line in lines:
        wanted, _, name = line.partition("  ")
        path = folder / name
        if len(wanted) != 64 or not name or not path.resolve().is_relative_to(folder.resolve()):
            return f"{NAME} is damaged"
        try:
            if file_sha256(path) != wanted:
                return f"{name} is changed"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} is not readable ({error.strerror})"
    return None if lines else f"{NAME} is empty"


def bytes_sha256(data: bytes) -> str:
    """The SHA-256 of bytes, as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
