"""The folder of a training or an evaluation, which the processes of one job share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from jaxreg import distributed
from jaxreg.errors import InputError
from jaxreg.io.atomic import claimed, require_writable


@contextlib.contextmanager
def claimed_by_first(folder: Path) -> Iterator[None]:
    """Make a folder of results; meanwhile no other job writes there.

    The first process claims it for all processes of its job.

    Raises:
        InputError: the folder cannot be made or written.
        InUse: another job writes there.
    """
    first = distributed.index() == 0
    if first:
        require_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}).") from error
    with claimed(folder) if first else contextlib.nullcontext():
        yield
