"""The scores of several processes put together through files beside the results.

Each process leaves its scores in a `.npz` (arrays of numbers and text, never pickles); the first
reads them in turn, so no process holds more than it must.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxreg import processes
from jaxreg.evaluation.sweep import Score


def together(folder: Path, scores: Sequence[Score]) -> list[Score]:
    """The scores of all processes in their order on process 0, none on the others.

    `folder` is one that all processes see. Waits until every process has come here.
    """
    if processes.count() == 1:
        return list(scores)
    if processes.index() > 0:
        write(_part(folder, processes.index()), scores)
    processes.wait("scores")
    if processes.index() > 0:
        return []
    merged = list(scores)
    for number in range(1, processes.count()):
        merged += read(_part(folder, number))
        _part(folder, number).unlink()
    return merged


def write(path: Path, scores: Sequence[Score]) -> None:
    """Write scores to a .npz."""
    with path.open("wb") as file:
        np.savez(
            file,
            fixed=np.array([s.fixed for s in scores], str),
            moving=np.array([s.moving for s in scores], str),
            lam=np.array([np.nan if s.lam is None else s.lam for s in scores], float),
            dice=np.array([s.dice for s in scores], np.float64).reshape(len(scores), -1),
            folds_percent=np.array([s.folds_percent for s in scores], float),
            sdlogj=np.array([s.sdlogj for s in scores], float),
            seconds=np.array([s.seconds for s in scores], float),
        )


def read(path: Path) -> list[Score]:
    """The scores that `write` wrote."""
    with np.load(path) as stored:
        columns = [stored[name] for name in Score._fields]
    return [
        Score(
            str(fixed), str(moving), None if np.isnan(lam) else float(lam), dice, *map(float, rest)
        )
        for fixed, moving, lam, dice, *rest in zip(*columns, strict=True)
    ]


def _part(folder: Path, number: int) -> Path:
    return folder / f".scores-{number:05d}.npz"
