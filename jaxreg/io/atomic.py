"""Writing files so that they appear only when they are complete."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxreg.errors import EnvironmentFailure, InputError
from jaxreg.io import locks

KEPT = ("lost+found",)
"""What a file system itself puts into its topmost folder."""
_OLD, _REPLACED = ".old", ".replaced"
"""Ends of the names of what is moved away: for now, and for good."""
_BESIDE = re.compile(r"\.\d+(\.old)?-(.+)", re.DOTALL)
_INSIDE = re.compile(r"(\.jaxreg-\d+)(\.old|\.replaced)?")
"""The hidden names on the way to a file or folder: beside it, and inside a folder."""
_LONGEST = 200
"""Bytes of a name that leave room for what a temporary name adds."""
_SECONDS_BETWEEN_TRIES = 0.05


class InUse(EnvironmentFailure):
    """Another process writes there at the moment."""


@contextmanager
def completed(path: Path | str) -> Iterator[Path]:
    """A name in the same folder to write to; it becomes `path` when the block ends well.

    Where `path` is a link, the file that it leads to is written. The name ends as `path` does, so
    that a writer which goes by the suffix does what it would do with `path`.

    Raises:
        InputError: the folder does not exist, or writing failed (no space left, no permission).
    """
    asked, path = Path(path), _resolved(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist.")
    temporary = path.with_name(f".{os.getpid()}-{_short(_named_as(asked.name, path))}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: not written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def claimed_file(path: Path | str, *, inputs: Iterable[Path] = ()) -> Iterator[None]:
    """Meanwhile no other process may write the file `path`; everything is checked before.

    What killed processes left there is removed.

    Raises:
        InputError: a folder, a device, a mount or a write-protected file in its place, a folder
            that is not there or cannot be written, one of the `inputs`, or another process that
            writes there.
    """
    found = _resolved(path)
    _check_file(path, found)
    for other in inputs:
        if found == _resolved(other) or _same_file(found, other):
            raise InputError(f"{path}: expected an output that is no input of the same command.")
    require_writable(path)
    with claimed(path):
        remove_leftovers(found.parent, {found.name, _named_as(Path(path).name, found)})
        yield


def _check_file(path: Path | str, found: Path) -> None:
    """Raise InputError where no file can be put at `found`, which `path` leads to."""
    if not found.parent.is_dir():
        raise InputError(f"{path}: the folder {found.parent} does not exist.")
    try:
        there = found.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    if not there:
        return
    if not found.is_file():
        kind = "a folder" if found.is_dir() else "a device or a pipe"
        raise InputError(f"{path}: expected the name of a file, got that of {kind}.")
    if _is_mount(found):
        raise InputError(f"{path}: is mounted there by itself; give --out in a folder.")
    if not os.access(found, os.W_OK):
        raise InputError(f"{path}: exists and is write-protected.")


def _same_file(found: Path, other: Path) -> bool:
    try:
        return os.path.samefile(found, other)
    except OSError:  # one of them is not there
        return False


@contextmanager
def completed_folder(path: Path | str) -> Iterator[Path]:
    """A new folder to fill; its content takes the place of `path`'s when the block ends well.

    What lay at `path` before is removed then, and stays untouched if the block fails. Where `path`
    is a link, it is the folder that it leads to. A folder that cannot be replaced itself (a mount,
    or in a folder that cannot be written) is filled inside.

    Raises:
        InputError: writing failed (no space left, no permission).
    """
    path = _resolved(path)
    inside = path.is_dir() and not _replaceable(path)
    own = f".jaxreg-{os.getpid()}"
    temporary = path / own if inside else _beside(path, "")
    old = path / f"{own}{_OLD}" if inside else _beside(path, _OLD)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        if inside:
            _put_inside(temporary, path, old)
        else:
            if path.is_dir():
                os.replace(path, old)
            os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: not written ({error.strerror or error}).") from error
    finally:
        if old.exists() and not path.exists():  # its successor did not take its place
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        if not inside:
            shutil.rmtree(old, ignore_errors=True)


def require_writable(path: Path | str) -> None:
    """Raise InputError where no file or folder `path` can be made, which is tried in its place.

    Nothing is left behind, and folders that are still missing are not made.
    """
    path = _resolved(path)
    try:
        exists = path.exists()
        for part in path.parts:
            if len(os.fsencode(part)) > 255:
                raise OSError(36, "File name too long")
        place = path if path.is_dir() and not _replaceable(path) else path.parent
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise InputError(f"{path}: {place} is a file, and no folder.")
        if not exists or path.is_dir() or not os.access(path, os.W_OK):
            os.rmdir(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=place))
        else:
            handle, name = tempfile.mkstemp(prefix=f".{os.getpid()}-", dir=place)
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


@contextmanager
def claimed(path: Path | str, *, seconds: float = 0.0) -> Iterator[None]:
    """Meanwhile no other process may claim `path`; a process that dies gives its claim back.

    What it left on the way to `path` is removed then, and what it had moved away comes back.
    `seconds` is how long to wait for another process that writes there.

    Raises:
        InUse: another process writes there.
    """
    path = _resolved(path)
    place = path.parent
    while not place.is_dir():
        place = place.parent
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    if not os.access(place, os.W_OK):
        place = path if path.is_dir() else Path(tempfile.gettempdir())
    lock = place / f".jaxreg-{name}.lock"
    end = time.monotonic() + seconds
    handle, sure = _locked(lock)
    while handle is None:
        if time.monotonic() >= end:
            raise InUse(f"{path}: another run is writing there.")
        time.sleep(_SECONDS_BETWEEN_TRIES)
        handle, sure = _locked(lock)
    try:
        if sure:
            with contextlib.suppress(PermissionError):
                _recover(path)
        yield
    finally:
        locks.release(handle, lock)


def _locked(lock: Path) -> tuple[int | None, bool]:
    """(the handle of a lock file, whether it is locked now); None where another process has it."""
    while True:
        try:
            handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise InputError(f"{lock}: cannot be written ({error.strerror}).") from error
        try:
            if not locks.lock(handle):  # what is there in the end is looked at again
                return handle, False
        except BlockingIOError:
            os.close(handle)
            return None, False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle, True
        os.close(handle)  # its owner has removed it in between


def _resolved(path: Path | str) -> Path:
    """A path without links.

    Raises:
        InputError: links that lead to each other, or a name that no file can have.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({error}).") from error


def _beside(path: Path, kind: str) -> Path:
    """A hidden name beside a path; long ones are cut, so that no file system refuses them."""
    return path.with_name(f".{os.getpid()}{kind}-{_short(path.name)}")


def _named_as(asked: str, path: Path) -> str:
    """The name of a path, which ends as the name does that is `asked` for."""
    ending = _ending(asked)
    return path.name if path.name.endswith(ending) else path.name + ending


def _ending(name: str) -> str:
    """The suffix of a name, of a compressed file both."""
    found = re.search(r"(?:\.[A-Za-z0-9]{1,8})?\.[A-Za-z0-9]{1,8}$", name)
    return found[0] if found else ""


def _short(name: str) -> str:
    """A name, or of a long one its beginning, a hash and its suffix."""
    if len(os.fsencode(name)) <= _LONGEST:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f"{name[:40]}-{digest}{_ending(name)}"


def _replaceable(folder: Path) -> bool:
    """Whether a folder that exists may be renamed."""
    return os.access(folder.parent, os.W_OK | os.X_OK) and not _is_mount(folder)


def _is_mount(folder: Path) -> bool:
    """Whether something is mounted at a folder, of another device or of this one (bind)."""
    if os.path.ismount(folder):
        return True
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return False
    points = (line.split()[4] for line in lines.splitlines())
    return str(folder) in {point.replace("\\040", " ") for point in points}


def _put_inside(temporary: Path, folder: Path, old: Path) -> None:
    """Move the content of `temporary` into a folder that holds it, in place of all else there.

    Until all else is in `old`, the earlier content is the right one, and then the new one is;
    `old` is renamed in between, so that `_recover` knows.
    """
    replaced = old.with_suffix(_REPLACED)
    old.mkdir()
    moved: list[tuple[Path, Path]] = []

    def move(entry: Path, to: Path) -> None:
        os.replace(entry, to)
        moved.append((entry, to))

    try:
        for entry in sorted(folder.iterdir()):
            if not _passing(entry.name):
                move(entry, old / entry.name)
        move(old, replaced)
        for entry in sorted(temporary.iterdir()):
            move(entry, folder / entry.name)
    except BaseException:
        for before, now in reversed(moved):
            os.replace(now, before)
        old.rmdir()
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _recover(path: Path) -> None:
    """Remove what killed processes left on the way to `path`, and bring back what they moved away.

    Nobody else writes there meanwhile.
    """
    if path.parent.is_dir():
        remove_leftovers(path.parent, {path.name})
    if not path.is_dir():
        return
    for left in sorted(path.iterdir()):
        match = _INSIDE.fullmatch(left.name)
        if match is None or not left.is_dir():
            continue
        if match[2] == _OLD:  # killed before all of the earlier content was moved away
            _move_all(left, path)
        elif match[2] == _REPLACED:  # killed after that
            _move_all(path / match[1], path)
    for left in sorted(path.iterdir()):
        if _INSIDE.fullmatch(left.name) and left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _move_all(source: Path, folder: Path) -> None:
    for entry in sorted(source.iterdir()) if source.is_dir() else ():
        os.replace(entry, folder / entry.name)


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove what killed processes left in a folder on the way to files or folders of these names.

    What such a process had moved away, and not yet replaced, comes back. What a living process is
    still writing there goes too.
    """
    by_short = {_short(name): name for name in names}
    for path in sorted(folder.iterdir()):
        match = _BESIDE.fullmatch(path.name)
        if match is None or match[2] not in by_short:
            continue
        own = folder / by_short[match[2]]
        if match[1] and not os.path.lexists(own):
            os.replace(path, own)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_plain(name: str) -> bool:
    """Whether a name is one folder's, inside the folder it is put in, on any system."""
    separate = any(c in "/\\" or not c.isprintable() for c in name)
    return bool(name) and not separate and name not in (".", "..") and len(name.encode()) <= 200


def require_free_folder(
    folder: Path, is_own: Callable[[str], bool], *, overwrite: bool, free_with: Collection[str] = ()
) -> None:
    """Refuse a folder that a run's results may not be written to.

    A folder is free that does not exist, or holds nothing but files named in `free_with`.
    `overwrite` replaces a run, and only a run: `is_own` says which names a run writes.

    Raises:
        InputError: a file in place of a folder, another run, any file that no run writes, or a
            place where nothing can be written.
    """
    require_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the results, got a file.")
    there = entries(folder) if folder.is_dir() else []
    if set(there) <= set(free_with):
        return
    if not overwrite:
        raise InputError(
            f"{folder}: holds another run ({there[0]}, …); give --overwrite, or another --out."
        )
    foreign = [name for name in there if not is_own(name)]
    if foreign:
        raise InputError(f"{folder}: not overwritten, it holds more than a run: {foreign[0]}.")


def entries(folder: Path) -> list[str]:
    """Names in a folder, without the file system's own and those that claim it for a run."""
    return sorted(p.name for p in folder.iterdir() if not _passing(p.name))


def _passing(name: str) -> bool:
    """Whether a name in a folder is the file system's own, a claim, or on the way."""
    claim = name.startswith(".jaxreg-") and name.endswith(".lock")
    return name in KEPT or claim or _INSIDE.fullmatch(name) is not None


def check_inputs_outside(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError where an input lies in the folder that the results will replace."""
    for path in inputs:
        if folder.resolve() in path.resolve().parents:
            raise InputError(f"{folder}: holds {path}, which is an input; give another --out.")
