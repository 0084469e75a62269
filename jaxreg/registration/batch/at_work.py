"""What a process that registers pairs says and records when SIGTERM ends it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jaxreg.errors import InputError
from jaxreg.registration.batch import failures
from jaxreg.registration.batch.pairs import FilePair

_LINE = (
    "jaxreg: stopped by SIGTERM; finished pairs stay, and the same command does the others "
    "({count} at work).\n"
)


class AtWork:
    """The pairs that this process registers at the moment, by any of its threads."""

    def __init__(self):
        """No pair is at work."""
        self._pairs: dict[tuple[Path, str], FilePair] = {}

    @contextmanager
    def on(self, out: Path, pair: FilePair) -> Iterator[None]:
        """Meanwhile a pair is at work."""
        self._pairs[out, pair.name] = pair
        try:
            yield
        finally:
            del self._pairs[out, pair.name]

    @contextmanager
    def recorded_when_terminated(self) -> Iterator[None]:
        """Meanwhile SIGTERM says a line and records the pairs at work before it ends the process.

        The process ends by the signal at once, as without this: a batch system kills soon after.
        A handler that somebody else has set stays.
        """
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            yield
            return
        signal.signal(signal.SIGTERM, self._end)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _end(self, signum: int, frame: FrameType | None) -> None:
        """Record, say, and die of the signal."""
        pairs = dict(self._pairs)
        for (out, _), pair in pairs.items():
            # On a full disk the record from the pair's beginning stays, which says that it began.
            with contextlib.suppress(InputError):
                failures.record(out, pair, failures.stopped_here("SIGTERM"))
        if sys.stderr is not None:
            # Not by print: the signal may have come in the middle of one.
            with contextlib.suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), _LINE.format(count=len(pairs)).encode())
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


AT_WORK = AtWork()
"""Of this process."""
