"""A lock on an open file, by the means of the system: `flock` on Linux and macOS, else Windows'.

Either ends with the process that holds it.
"""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


def lock(handle: int) -> bool:
    """Whether this process now has the lock of an open file that no other process may have.

    Raises:
        BlockingIOError: another process, or another handle of this one, has it.
    """
    if fcntl is None:
        return _lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return False
    return True


def _lock_on_windows(handle: int) -> bool:
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore
    except OSError as error:
        raise BlockingIOError(error.errno, error.strerror) from error
    return True


def release(handle: int, path: Path) -> None:
    """Close a locked file and remove it, in the order in which the system allows it.

    Where an open file can be removed, that comes first, so that nobody removes another's. Windows
    refuses to remove a file that another process has opened by then.
    """
    if fcntl is None:
        os.close(handle)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path.unlink()
        return
    path.unlink(missing_ok=True)
    os.close(handle)
