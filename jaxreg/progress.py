"""How a long run shows that it works: bars on a terminal, elsewhere a line every ten seconds."""

import io
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS = 10.0
"""The longest silence."""


class Progress:
    """Shows nothing, which is what the library does where no command asks for more."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Say that the work called `name` begins, and now and then that it goes on."""
        yield

    def each(self, items: Iterable[T], *, total: int, name: str) -> Iterable[T]:
        """The items, with a bar that counts those that are done."""
        return items


class ShownProgress(Progress):
    """Writes phases and bars to a stream; `seconds` is the longest silence."""

    def __init__(self, stream: Any, *, seconds: float = SECONDS):
        """Nothing has been written yet."""
        self._stream, self._seconds = stream, seconds
        self._last = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A line when the work begins, and one whenever nothing was shown for `seconds`."""
        start, ended = time.monotonic(), threading.Event()
        self._write(f"{name} …")

        def go_on():
            while not ended.wait(max(0.05, self._last + self._seconds - time.monotonic())):
                if time.monotonic() - self._last >= self._seconds:
                    self._write(f"{name} … {time.monotonic() - start:.0f} s so far")

        watcher = threading.Thread(target=go_on, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def each(self, items: Iterable[T], *, total: int, name: str) -> Iterator[T]:
        """The items, with a bar."""
        for item in bar(items=items, total=total, desc=name, file=self._stream, leave=False):
            self._last = time.monotonic()
            yield item

    def _write(self, line: str) -> None:
        self._last = time.monotonic()
        tqdm.write(line, file=self._stream)
        self._stream.flush()


class _Lines(tqdm):
    """A bar as plain lines, for a file or a pipe."""

    @staticmethod
    def status_printer(file: Any) -> Any:
        """A function that writes a state of the bar as a line of its own."""

        def write(state: str) -> None:
            if state:
                file.write(f"{state}\n")
                file.flush()

        return write

    def close(self) -> None:
        """Write the last state, where it is not written yet."""
        if not self.disable and self.n > self.last_print_n:
            self.refresh()
        self.leave, self.fp = False, io.StringIO()  # tqdm would end its own line here
        super().close()


_LINE = "{desc}: {n_fmt} of {total_fmt} in {elapsed}, {remaining} left{postfix}"


def bar(*, items: Iterable[Any] | None = None, **settings: Any) -> tqdm:
    """A bar of the items, or one to be updated; plain lines where the stream is no terminal."""
    stream = settings.get("file") or sys.stderr
    if stream.isatty():
        return tqdm(items, dynamic_ncols=True, **settings)
    lines = {"mininterval": SECONDS, "maxinterval": SECONDS, "bar_format": _LINE}
    return _Lines(items, **{**settings, **lines})
