"""How long each part of a registration takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from jaxreg.progress import SILENT, Progress

START = "start (Python, imports)"
"""What passes before a registration can begin."""


class Clock:
    """Seconds by the name of the work, in the order in which it was begun; `progress` shows it."""

    def __init__(self, progress: Progress | None = None):
        """Nothing has been measured yet."""
        self.seconds: dict[str, float] = {}
        self.progress = progress or SILENT

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to `name`."""
        start = time.perf_counter()
        try:
            with self.progress.phase(name):
                yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
