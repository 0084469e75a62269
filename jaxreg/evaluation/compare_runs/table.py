"""table.csv and structures.csv of a comparison, and the table on standard output.

All means are over test subjects (the mean over the pairs with that subject fixed). An empty cell
is a value that does not exist: a spread over one subject, a difference of the reference to itself.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxreg.evaluation.quality import Quality
from jaxreg.evaluation.results import Sweep
from jaxreg.evaluation.statistics import (
    best_index,
    mean_known,
    over_subjects,
    paired_difference,
    standard_deviation,
)

COLUMNS = (
    "run",
    "loss",
    "step",
    "parameters_sha256",
    "lam",
    "dice",
    "dice_sd",
    "folds_percent",
    "sdlogj",
    "ndv_percent",
    "hd95_mm",
    "inverse_consistency_mm",
    "seconds",
    "lam_test_best",
    "dice_test_best",
    "folds_percent_for_best_dice",
    "reference",
    "dice_difference",
    "difference_low",
    "difference_high",
    "p",
    "subjects",
    "pairs",
    "note",
)
"""`lam` is chosen on the validation split, and what follows up to `seconds` holds there;
`folds_percent_for_best_dice` are the folds at `lam_test_best`; the difference is this run's mean
Dice minus the reference's, each at its `lam`."""


class Scored(NamedTuple):
    """A run and what was measured of it.

    Attributes:
        name: the run's folder.
        label: what it is called in the figures.
        loss: its stored objective's.
        step: training step.
        parameters_sha256: hash of its parameters.
        note: what sets it apart from the others, such as an unequal budget.
        test: its sweep over the test split.
        chosen: index of the λ chosen on the validation split.
        quality: each test pair at that λ.
    """

    name: str
    label: str
    loss: str
    step: int
    parameters_sha256: str
    note: str
    test: Sweep
    chosen: int
    quality: list[Quality]


def table(
    runs: Sequence[Scored], reference: Scored, plain_quality: Sequence[Quality]
) -> list[dict[str, Any]]:
    """A row of `COLUMNS` for no registration, then one for each run; NaN where there is no value.

    `plain_quality` are the test pairs with no registration.
    """
    plain = over_subjects(reference.test.plain_mean_dice, reference.test.fixed)
    none: dict[str, Any] = {"loss": "no registration", "folds_percent": 0.0, "sdlogj": 0.0}
    none |= _dice(plain, reference.test) | _quality(plain_quality, reference.test.fixed)
    rows = [none | _difference(reference.test.plain_mean_dice, reference)]
    for run in runs:
        dice = _dice_at_choice(run)
        row = _settings(run) | _dice(dice, run.test) | _at_choice(run) | _test_best(run.test)
        if run is not reference:
            row |= _difference(run.test.mean_dice[run.chosen], reference)
        rows.append(row)
    return [{name: row.get(name, math.nan) for name in COLUMNS} for row in rows]


def _dice_at_choice(run):
    return over_subjects(run.test.mean_dice[run.chosen], run.test.fixed)


def _settings(run):
    names = ("loss", "step", "parameters_sha256", "note")
    return {"run": run.name} | {name: getattr(run, name) for name in names}


def _dice(dice, test):
    return {
        "dice": float(dice.mean()),
        "dice_sd": standard_deviation(dice),
        "subjects": len(dice),
        "pairs": len(test.pairs),
    }


def _at_choice(run):
    folds, sdlogj = (
        over_subjects(values[run.chosen], run.test.fixed).mean()
        for values in (run.test.folds_percent, run.test.sdlogj)
    )
    row = {"lam": run.test.lams[run.chosen], "folds_percent": folds, "sdlogj": sdlogj}
    # The first pair's time holds the compilation: the median does not see it.
    row["seconds"] = float(np.median(run.test.seconds[run.chosen]))
    return row | _quality(run.quality, run.test.fixed)


def _quality(quality, fixed):
    columns = np.array(quality, float).T
    return {
        name: mean_known(over_subjects(values, fixed))
        for name, values in zip(Quality._fields, columns, strict=True)
    }


def _test_best(test):
    dice, folds = (
        over_subjects(values, test.fixed).mean(axis=1)
        for values in (test.mean_dice, test.folds_percent)
    )
    best = best_index(dice)
    return {
        "lam_test_best": test.lams[best],
        "dice_test_best": float(dice[best]),
        "folds_percent_for_best_dice": float(folds[best]),
    }


def _difference(dice, reference):
    """The Dice of each pair against that of the reference run at its chosen λ."""
    test = reference.test
    difference = paired_difference(dice, test.mean_dice[reference.chosen], test.pairs)
    return {
        "reference": reference.name,
        "dice_difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "p": difference.p,
    }


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The rows as CSV, numbers with six digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)


def write_structures(path: Path, runs: Sequence[Scored]) -> None:
    """Each structure's mean Dice over the test pairs that have it: no registration, then a run."""
    names = runs[0].test.structures
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["structure", "pairs", "no registration", *(run.name for run in runs)])
        columns = [runs[0].test.plain_dice, *(run.test.dice[run.chosen] for run in runs)]
        for i, name in enumerate(names):
            pairs = int(np.sum(~np.isnan(columns[0][:, i])))
            writer.writerow([name, pairs, *(_cell(mean_known(dice[:, i])) for dice in columns)])


def _cell(value):
    if isinstance(value, str | int):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


_SHOWN = (
    ("λ", "lam", 6, ".2f"),
    ("Dice", "dice", 8, ".4f"),
    ("± SD", "dice_sd", 8, ".4f"),
    ("folds %", "folds_percent", 9, ".4f"),
    ("SDlogJ", "sdlogj", 8, ".4f"),
    ("NDV %", "ndv_percent", 9, ".5f"),
    ("HD95 mm", "hd95_mm", 9, ".3f"),
    ("inv. mm", "inverse_consistency_mm", 9, ".4f"),
    ("s", "seconds", 7, ".2f"),
    ("│ λ", "lam_test_best", 7, ".2f"),
    ("Dice", "dice_test_best", 8, ".4f"),
    ("folds %", "folds_percent_for_best_dice", 9, ".4f"),
    ("│ Δ Dice", "dice_difference", 10, "+.4f"),
    ("from", "difference_low", 9, "+.4f"),
    ("to", "difference_high", 9, "+.4f"),
    ("p", "p", 11, ".3g"),
)
"""Heading, column, width and form of what is printed."""


def print_table(rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> None:
    """The table on standard output; `labels` are the runs', in the order of the rows after none."""
    names = ["no registration", *labels]
    width = max(map(len, names))
    print(" " * width + "".join(f"{heading:>{size}}" for heading, _, size, _ in _SHOWN))
    for name, row in zip(names, rows, strict=True):
        cells = (
            f"{'' if math.isnan(row[column]) else format(row[column], form):>{size}}"
            for _, column, size, form in _SHOWN
        )
        print(f"{name:{width}}" + "".join(cells))
    print("Left at the λ chosen on the validation split, middle at the best λ of the test split;")
    print("Δ Dice with its 95 % interval and p, which allow for the subjects that pairs share.")
