"""results.tsv: what became of each pair, in the order of pairs.tsv."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxreg.io.atomic import completed
from jaxreg.registration.batch.pairs import FilePair

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
COLUMNS = ("name", "fixed", "moving", "status", "reason", *NUMBERS)


class Outcome(NamedTuple):
    """A pair that was tried: done, with its numbers, or failed, with the reason in one line."""

    name: str
    reason: str | None
    numbers: dict[str, float]


def write_results(path: Path, pairs: Sequence[FilePair], outcomes: Mapping[str, Outcome]) -> None:
    """Write the rows of the pairs that have an outcome; the old table stays until they are there.

    Raises:
        InputError: the table cannot be written.
    """
    rows = [_row(pair, outcomes[pair.name]) for pair in pairs if pair.name in outcomes]
    with completed(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def line_of(outcome: Outcome) -> str:
    """The outcome in a line for readers."""
    if outcome.reason is not None:
        return f"{outcome.name}: failed: {outcome.reason}"
    numbers = outcome.numbers
    before, after = numbers["similarity_affine"], numbers["similarity"]
    line = f"{outcome.name}: similarity {before:.3f} → {after:.3f}"
    line += f", folds {numbers['folds_percent']:.4f} %"
    if "estimated_dice" in numbers:
        line += f", estimated Dice {numbers['estimated_dice']:.2f}"
    if "dice" in numbers:
        line += f", Dice {numbers['dice_affine']:.3f} → {numbers['dice']:.3f}"
    return line


def _row(pair: FilePair, outcome: Outcome) -> list[str]:
    status = "done" if outcome.reason is None else "failed"
    numbers = [_text(outcome.numbers.get(name)) for name in NUMBERS]
    return [pair.name, pair.fixed, pair.moving, status, outcome.reason or "n/a", *numbers]


def _text(number: float | None) -> str:
    return "n/a" if number is None or number != number else f"{number:.6g}"
