"""How long work shows that it goes on: bars on a terminal, elsewhere lines, fewer and fewer.

The work gets a `Progress` and calls it; what that shows is decided where a command begins.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS = 10.0
"""The longest silence at first."""
LONGEST_SECONDS = 300.0
"""The longest silence of lines: each doubles it, so that a log of hours stays one to read."""


class Bar(Protocol):
    """What counts the parts of a work that are done; its methods may be called by any thread."""

    def update(self, count: int = 1) -> None:
        """Count more parts as done."""

    def note(self, values: Mapping[str, float]) -> None:
        """Show these numbers behind the bar when it is drawn again."""

    def call(self, part: str) -> None:
        """Show the name of the part that was done last when the bar is drawn again."""


class Progress:
    """Shows nothing, which is what the library does where nobody asks for more."""

    @contextmanager
    def phase(self, name: str, *, announced: bool = True) -> Iterator[None]:
        """Say that the work called `name` begins, and now and then that it goes on.

        Work that is not `announced` shows nothing unless it takes long.
        """
        yield

    @contextmanager
    def bar(self, *, total: int, name: str, unit: str = "", done: int = 0) -> Iterator[Bar]:
        """A bar of `total` parts called `unit`, of which some may be `done` already."""
        yield _Hidden()

    def each(
        self,
        items: Iterable[T],
        *,
        total: int,
        name: str,
        unit: str = "",
        named: Callable[[T], str] | None = None,
    ) -> Iterator[T]:
        """The items, with a bar that counts those that are done, and says how the last is named."""
        with self.bar(total=total, name=name, unit=unit) as bar:
            for item in items:
                yield item
                if named is not None:
                    bar.call(named(item))
                bar.update()

    def line(self, text: str) -> None:
        """A line on the work that goes on."""


SILENT = Progress()
"""The progress of work that nobody watches."""


class ShownProgress(Progress):
    """Writes phases and bars to a stream.

    `seconds` is the longest silence at first. A bar on a terminal keeps it; each line that only
    says that a work goes on doubles that of the work, up to `LONGEST_SECONDS`.
    """

    def __init__(self, stream: Any, *, seconds: float = SECONDS):
        """Nothing has been written yet."""
        self._stream, self._seconds = _Lossy(stream), seconds
        self._last = time.monotonic()
        self._open: list[Callable[[], None]] = []
        self._speaks = threading.Lock()  # held by who asks which work is the innermost

    @contextmanager
    def phase(self, name: str, *, announced: bool = True) -> Iterator[None]:
        """A line when the work begins, and one whenever nothing was shown for a while."""
        start = time.monotonic()
        self._mark()
        if announced:
            self.line(f"{name} …")
        with self._alive(
            lambda: self.line(f"{name} … {time.monotonic() - start:.0f} s so far"),
            _Patience(self._seconds, LONGEST_SECONDS),
        ):
            yield

    @contextmanager
    def bar(self, *, total: int, name: str, unit: str = "", done: int = 0) -> Iterator[Bar]:
        """A bar, drawn again whenever nothing was shown for a while."""
        drawn = self._stream.isatty()
        patience = _Patience(self._seconds, self._seconds if drawn else LONGEST_SECONDS)
        kind = _Drawn if drawn else _Lines
        bar = kind(self._stream, self._mark, patience, total, name, unit, done)
        try:
            with self._alive(bar.show, patience):
                yield bar
        finally:
            bar.close()

    def line(self, text: str) -> None:
        """Write a line above the bars."""
        self._mark()
        write_line(text, stream=self._stream)

    @contextmanager
    def _alive(self, show: Callable[[], None], patience: "_Patience") -> Iterator[None]:
        """Call `show` whenever nothing was shown for a while, and no work inside this one is."""
        ended = threading.Event()

        def watch():
            while not ended.wait(max(0.05, self._last + patience.seconds - time.monotonic())):
                with self._speaks:
                    silent = time.monotonic() - self._last >= patience.seconds
                    if silent and self._open[-1:] == [show]:
                        show()
                        patience.grow()

        watcher = threading.Thread(target=watch, daemon=True)
        with self._speaks:
            self._open.append(show)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            with self._speaks:
                self._open.remove(show)
            watcher.join()

    def _mark(self) -> None:
        self._last = time.monotonic()


def write_line(line: str, *, stream: Any = None) -> None:
    """Write a line, by default to standard output, above the bars that a terminal shows.

    A stream that cannot take it (a pipe that nobody reads, a full disk) loses the line.
    """
    stream = stream or sys.stdout
    if stream is not None:  # closed before the start
        lossy = stream if isinstance(stream, _Lossy) else _Lossy(stream)
        tqdm.write(line, file=lossy)
        lossy.flush()


class _Lossy:
    """A stream whose lines are lost where it cannot take them, which is no reason to stop."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a text, or lose it."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)

    def flush(self) -> None:
        """Pass on what was written, or lose it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __eq__(self, other: object) -> bool:
        """Whether it is the same stream: tqdm asks, to clear the bars that are drawn there."""
        return self._stream == getattr(other, "_stream", other)

    def __hash__(self) -> int:
        """As the stream's."""
        return hash(self._stream)

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's own."""
        return getattr(self._stream, name)


class _Patience:
    """How long a work may be silent: twice as long after each line, up to `longest` seconds."""

    def __init__(self, seconds: float, longest: float):
        self.seconds, self._longest = seconds, longest

    def grow(self) -> None:
        self.seconds = max(self.seconds, min(2 * self.seconds, self._longest))


class _Hidden:
    def update(self, count: int = 1) -> None:
        """Show nothing."""

    def call(self, part: str) -> None:
        """Show nothing."""

    def note(self, values: Mapping[str, float]) -> None:
        """Show nothing."""


class _Drawn:
    """A bar on a terminal."""

    def __init__(self, stream, mark, patience, total, name, unit, done):
        self._mark, self._lock = mark, threading.Lock()
        self._numbers, self._part = "", ""
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=unit or "it",
            file=stream,
            dynamic_ncols=True,
            mininterval=min(0.5, patience.seconds),
            leave=False,
        )

    def update(self, count: int = 1) -> None:
        with self._lock:
            drawn = self._bar.update(count)
        if drawn:
            self._mark()

    def note(self, values: Mapping[str, float]) -> None:
        self._numbers = ", ".join(f"{name}={value:.3g}" for name, value in values.items())
        self._words()

    def call(self, part: str) -> None:
        self._part = part
        self._words()

    def _words(self) -> None:
        words = ", ".join(filter(None, (self._part, self._numbers)))
        self._bar.set_postfix_str(words, refresh=False)

    def show(self) -> None:
        self._bar.refresh()
        self._mark()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """A bar as plain lines, for a file or a pipe: at the beginning, now and then, at the end."""

    def __init__(self, stream, mark, patience, total, name, unit, done):
        self._stream, self._mark, self._patience = stream, mark, patience
        self._total, self._name, self._unit = total, name, unit
        self._first = self._done = done
        self._start = self._shown_at = time.monotonic()
        self._shown, self._words, self._part = done, "", ""
        self._lock = threading.RLock()
        self.show()

    def update(self, count: int = 1) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() - self._shown_at >= self._patience.seconds:
                self.show()
                self._patience.grow()

    def note(self, values: Mapping[str, float]) -> None:
        self._words = "".join(f", {name}={value:.3g}" for name, value in values.items())

    def call(self, part: str) -> None:
        self._part = f" ({part})"

    def show(self) -> None:
        with self._lock:  # a watcher and the work may both want to
            self._shown, self._shown_at = self._done, time.monotonic()
            spent, new = self._shown_at - self._start, self._done - self._first
            left = f", {_clock(spent / new * (self._total - self._done))} left" if new else ""
            parts = f"{self._done} of {self._total} {self._unit}".rstrip() + self._part
            self._stream.write(f"{self._name}: {parts} in {_clock(spent)}{left}{self._words}\n")
            self._stream.flush()
            self._mark()

    def close(self) -> None:
        if self._done > self._shown:
            self.show()


def _clock(seconds: float) -> str:
    return tqdm.format_interval(seconds)
