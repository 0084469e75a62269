"""Several pairs at once in one process: while one waits for a disk or a core, another computes."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 2
"""Pairs at once: a 2 mm pair alone takes 15 s of processor time in 10 s, so a quarter of two cores
is idle (docs/experiments/benchmarks.md)."""


def side_by_side(
    job: Callable[[Item], Result], items: Iterable[Item], at_once: int
) -> Generator[Result, None, None]:
    """The results of a job for each item, at most `at_once` at a time, as they come.

    The first item has the process to itself, so that programs are compiled once. Where nobody takes
    further results, the jobs at work are finished and no other one is begun.
    """
    rest = iter(items)
    yield from map(job, islice(rest, 1) if at_once > 1 else rest)
    with ThreadPoolExecutor(at_once, thread_name_prefix="pair") as pool:
        working = {pool.submit(job, item) for item in islice(rest, at_once)}
        while working:
            finished: set[Future[Result]]
            finished, working = wait(working, return_when=FIRST_COMPLETED)
            working |= {pool.submit(job, item) for item in islice(rest, len(finished))}
            for future in finished:
                yield future.result()
