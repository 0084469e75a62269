"""How often a process opens each file."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_counts: list[Counter[str]] = []


def _hook(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str):
        for counts in _counts:
            counts[Path(arguments[0]).name] += 1


sys.addaudithook(_hook)  # a hook cannot be taken away again


@contextmanager
def opened_files() -> Iterator[Counter[str]]:
    """Count meanwhile how often a file of each name is opened, by this process."""
    counts: Counter[str] = Counter()
    _counts.append(counts)
    try:
        yield counts
    finally:
        _counts.remove(counts)
