"""results.tsv: what became of each pair, in the order of pairs.tsv.

The files of each pair are the only record of it, and the table is made from them.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jaxreg.errors import InputError, Kind
from jaxreg.io.atomic import claimed
from jaxreg.io.tables import write_table
from jaxreg.registration.batch.columns import MARK
from jaxreg.registration.batch.failures import failure_of
from jaxreg.registration.batch.pairs import RESULTS, FilePair
from jaxreg.registration.batch.resume import record_in, timings_in

Status = Literal["done", "failed", "unfinished"]
NONE = "n/a"

NUMBERS = (
    "lam",
    "similarity_affine",
    "similarity",
    "folds_percent",
    "sdlogj",
    "jacobian_min",
    "jacobian_max",
    "displacement_mean_mm",
    "displacement_max_mm",
    "inverse_consistency_mm",
    "affine_determinant",
    "mask_overlap",
    "estimated_dice_affine",
    "estimated_dice",
    "estimated_dice_low",
    "estimated_dice_high",
    "dice_affine",
    "dice",
    "dice_labels",
)
"""Columns of numbers; n/a where a pair has none (no labels, no λ of a rigid transform, no brain
that was segmented)."""
COLUMNS = (
    "name",
    "fixed",
    "moving",
    "status",
    "kind",
    "reason",
    "verdict",
    "verdict_reasons",
    *NUMBERS,
    "seconds",
    "peak_gigabytes",
    "warnings",
    "warning_texts",
)
_SECONDS_OF_PATIENCE = 60.0
"""How long to wait for other jobs that write the table."""
_SECONDS_BETWEEN_WRITES, _SHARE_OF_WRITING = 5.0, 0.05
"""So that writing the table again and again does not grow with the square of the pairs."""


class Outcome(NamedTuple):
    """What became of a pair, as JSON values.

    Attributes:
        name: the pair's.
        status: done, failed, or unfinished: begun by a process that is at work or was killed.
        kind: whose fault a failure is.
        reason: of a failure, in one line.
        numbers: of a result, by name.
        verdict: green, amber or red; None of a result of an earlier version.
        verdict_reasons: what stands out.
        seconds: what the registration took.
        peak_gigabytes: the largest memory that its process had held by then.
        warnings: the lines that the user should know.
    """

    name: str
    status: Status
    kind: Kind | None = None
    reason: str | None = None
    numbers: dict[str, float] = {}
    verdict: str | None = None
    verdict_reasons: list[str] = []
    seconds: float | None = None
    peak_gigabytes: float | None = None
    warnings: list[str] = []


def outcome_of(out: Path, name: str) -> Outcome | None:
    """What the files of a pair say became of it; None of a pair that was not tried."""
    failure = failure_of(out, name)
    if failure is not None:
        status: Status = "unfinished" if failure.unfinished else "failed"
        return Outcome(name, status, failure.kind, failure.reason)
    record = record_in(out / name)
    if record is None:
        return None
    verdict = record.get("verdict") or {}
    timings = timings_in(out / name)
    return Outcome(
        name,
        "done",
        numbers=record["metrics"],
        verdict=verdict.get("state"),
        verdict_reasons=verdict.get("reasons", []),
        seconds=sum(timings["seconds"].values()) if "seconds" in timings else None,
        peak_gigabytes=timings.get("peak_gigabytes"),
        warnings=record.get("warnings", []),
    )


def outcomes_of(out: Path, names: Iterable[str]) -> dict[str, Outcome]:
    """What became of the pairs that were tried, by any process."""
    found = {name: outcome_of(out, name) for name in names}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def join_results(out: Path, pairs: Sequence[FilePair], known: Mapping[str, Outcome]) -> None:
    """Write results.tsv from what the files of all pairs say, whichever process wrote them.

    `known` has outcomes that no file may hold, as on a full disk. Several jobs may do this at once:
    one waits for the other, and where the file system knows no locks, each looks again whether a
    pair was added after it had looked, so the last one to write has seen all.

    Raises:
        InputError: the table cannot be written.
    """
    names, path = [pair.name for pair in pairs], out / RESULTS
    written = None
    while written != {**known, **outcomes_of(out, names)}:
        with claimed(path, seconds=_SECONDS_OF_PATIENCE):
            written = {**known, **outcomes_of(out, names)}
            write_results(path, pairs, written)


def write_results(path: Path, pairs: Sequence[FilePair], outcomes: Mapping[str, Outcome]) -> None:
    """Write the rows of the pairs that have an outcome; the old table stays until they are there.

    Raises:
        InputError: the table cannot be written.
    """
    own = own_columns_of(pairs)
    rows = [
        [*_row(pair, outcomes[pair.name]), *(_cell(pair.own.get(column)) for column in own)]
        for pair in pairs
        if pair.name in outcomes
    ]
    write_table(path, [*COLUMNS, *own], rows)


def own_columns_of(pairs: Sequence[FilePair]) -> list[str]:
    """The further columns that the pairs' own table has, in its order.

    Raises:
        InputError: one that results.tsv has by itself.
    """
    own = list(dict.fromkeys(column for pair in pairs for column in pair.own))
    for column in own:
        if column in COLUMNS:
            text = f"the column {column!r} is one of {RESULTS}; call it {MARK}{column}"
            raise InputError(f"--pairs: {text}.")
    return own


class ResultsTable:
    """results.tsv, written now and then while pairs are registered: a small part of the time."""

    def __init__(self, out: Path, pairs: Sequence[FilePair]):
        """Nothing has been written yet."""
        self._out, self._pairs = out, pairs
        self._next = time.monotonic()

    def write_if_due(self, known: dict[str, Outcome]) -> None:
        """Write the table, unless that was done a short while ago."""
        if time.monotonic() >= self._next:
            self.write(known)

    def write(self, known: dict[str, Outcome]) -> None:
        """Write the table."""
        start = time.monotonic()
        join_results(self._out, self._pairs, known)
        spent = time.monotonic() - start
        self._next = start + max(_SECONDS_BETWEEN_WRITES, spent / _SHARE_OF_WRITING)


def line_of(outcome: Outcome) -> str:
    """The outcome in a line for readers."""
    if outcome.status == "unfinished":
        return f"{outcome.name}: left to another run, which is registering this pair"
    if outcome.status != "done":
        return f"{outcome.name}: {outcome.status} ({outcome.kind}): {outcome.reason}"
    numbers = outcome.numbers
    before, after = numbers["similarity_affine"], numbers["similarity"]
    line = f"{outcome.name}: similarity {before:.3f} → {after:.3f}"
    line += f", folds {numbers['folds_percent']:.4f} %"
    if "estimated_dice" in numbers:
        line += f", estimated Dice {numbers['estimated_dice']:.2f}"
    if "dice" in numbers:
        line += f", Dice {numbers['dice_affine']:.3f} → {numbers['dice']:.3f}"
    return line if outcome.verdict in (None, "green") else f"{line}, {outcome.verdict}"


def _row(pair: FilePair, outcome: Outcome) -> list[str]:
    """The cells of a pair."""
    done = outcome.status == "done"
    return [
        pair.name,
        pair.fixed,
        pair.moving,
        outcome.status,
        outcome.kind or NONE,
        _cell(outcome.reason),
        outcome.verdict or NONE,
        _cell("; ".join(outcome.verdict_reasons)),
        *(_text(outcome.numbers.get(name)) for name in NUMBERS),
        NONE if outcome.seconds is None else f"{outcome.seconds:.1f}",
        _text(outcome.peak_gigabytes),
        str(len(outcome.warnings)) if done else NONE,
        _cell("; ".join(outcome.warnings)),
    ]


def _cell(text: str | None) -> str:
    """Text without the characters that end a cell or a line."""
    return " ".join(text.split()) if text else NONE


def _text(number: float | None) -> str:
    return NONE if number is None or number != number else f"{number:.6g}"
