"""Scores in files beside the results: of several processes, and of an evaluation that goes on.

Each process leaves its scores in a `.npz` (arrays of numbers and text, never pickles); the first
reads them in turn, so no process holds more than it must. What a process has scored so far it saves
from time to time under the name of what is evaluated, and the same evaluation finds it again.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxreg import distributed
from jaxreg.evaluation.sweep import Score
from jaxreg.io.archives import DAMAGED_ARCHIVE

SAVE_SECONDS = 60.0
"""Between two saves; what a killed evaluation loses at most, beside the pair at hand."""


def together(folder: Path, scores: Sequence[Score]) -> list[Score]:
    """The scores of all processes in their order on process 0, none on the others.

    `folder` is one that all processes see. Waits until every process has come here.
    """
    if distributed.count() == 1:
        return list(scores)
    if distributed.index() > 0:
        write(_part(folder, distributed.index()), scores)
    distributed.wait("scores")
    if distributed.index() > 0:
        return []
    merged = list(scores)
    for number in range(1, distributed.count()):
        merged += read(_part(folder, number))
        _part(folder, number).unlink()
    return merged


class SoFar:
    """The scores of this process in an evaluation, by pair, saved once a minute.

    `identity` (JSON values) is what is evaluated, the pairs of this process among it: where it
    differs, nothing stored is used.
    """

    def __init__(self, folder: Path, identity: Any):
        """Read what an evaluation of the same identity left; a damaged file counts as none."""
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f".so-far-{name}-{distributed.index():05d}.npz"
        self._partial = self.path.with_suffix(".partial")
        self.scores: dict[tuple[str, str], list[Score]] = {}
        self._saved = time.monotonic()
        if not self.path.is_file():
            return
        try:
            stored = read(self.path)
        except DAMAGED_ARCHIVE as error:
            print(f"{self.path}: not readable ({error}); its pairs are scored again.")
            return
        for score in stored:
            self.scores.setdefault((score.fixed, score.moving), []).append(score)

    def add(self, pair: tuple[str, str], scores: Sequence[Score]) -> None:
        """Keep the scores of a pair; they reach the disk with the next save."""
        self.scores[pair] = list(scores)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write all scores, in the place of the last ones when they are complete."""
        write(self._partial, [score for scores in self.scores.values() for score in scores])
        self._partial.replace(self.path)
        self._saved = time.monotonic()

    def forget(self) -> None:
        """Remove what was saved, when the results are written."""
        for path in (self.path, self._partial):
            path.unlink(missing_ok=True)


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
    with path.open("rb") as file, np.load(file) as stored:
        columns = [stored[name] for name in Score._fields]
    return [
        Score(
            str(fixed), str(moving), None if np.isnan(lam) else float(lam), dice, *map(float, rest)
        )
        for fixed, moving, lam, dice, *rest in zip(*columns, strict=True)
    ]


def _part(folder: Path, number: int) -> Path:
    return folder / f".scores-{number:05d}.npz"
