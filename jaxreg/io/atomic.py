"""Writing files so that they appear only when they are complete."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxreg.errors import InputError


@contextmanager
def completed(path: Path | str) -> Iterator[Path]:
    """A name in the same folder to write to; it becomes `path` when the block ends well.

    Raises:
        InputError: the folder does not exist, or writing failed (no space left, no permission).
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist.")
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: not written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def completed_folder(path: Path | str) -> Iterator[Path]:
    """A new folder beside `path` to fill; it takes `path`'s place when the block ends well.

    What lay at `path` before is removed then, and stays untouched if the block fails.

    Raises:
        InputError: writing failed (no space left, no permission).
    """
    path = Path(path).absolute()
    temporary, old = (path.with_name(f".{os.getpid()}{kind}-{path.name}") for kind in ("", ".old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: not written ({error.strerror or error}).") from error
    finally:
        if old.exists() and not path.exists():  # its successor did not take its place
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove what killed processes left in a folder on the way to files or folders of these names.

    What a living process is still writing there goes too.
    """
    for path in list(folder.iterdir()):
        match = re.fullmatch(r"\.\d+(?:\.old)?-(.+)", path.name, re.DOTALL)
        if match is None or match[1] not in names:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_plain(name: str) -> bool:
    """Whether a name is one folder's, inside the folder it is put in, on any system."""
    separate = any(c in "/\\" or not c.isprintable() for c in name)
    return bool(name) and not separate and name not in (".", "..") and len(name.encode()) <= 200
