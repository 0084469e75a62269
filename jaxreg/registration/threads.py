"""Independent calls side by side, whose libraries release Python's lock: NumPy, zlib, SimpleITK."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_threads(*jobs: Callable[[], Any]) -> list[Any]:
    """The results of independent calls, two at a time; the first one's error comes first."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]
