"""`index.html`: one self-contained page over the reports of many pairs.

As `report.html`, it opens from the file system and loads nothing. Outliers come first: a number is
one where its robust z score is beyond `OUTLIER` on the side that is worse.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from jaxreg.registration.report.html import page_file, write_page

Worse = Literal["low", "high", "both"] | None

OUTLIER = 3.5
"""Of the robust z score, 0.6745 · (x − median) / MAD (Iglewicz and Hoaglin 1993)."""
_FEWEST = 8
"""Values without which nothing is called an outlier."""
_ROUNDING = 1e-9
"""Numbers whose range is a smaller share of them are the same number."""
_BINS = 24
_PICTURES = 1000
"""Rows with a picture, so that a page of ten thousand pairs still opens."""
_RANKS = ("failed", "unfinished", "red", "outlier", "amber", "green", "unknown")


class Column(NamedTuple):
    """A number of the table: its name, what readers call it, and on which side it is worse."""

    name: str
    label: str
    worse: Worse
    form: str = ".3g"


COLUMNS = (
    Column("estimated_dice", "estimated Dice", "low", ".2f"),
    Column("dice", "Dice", "low", ".3f"),
    Column("similarity", "similarity", "low", ".3f"),
    Column("mask_overlap", "brain overlap", "low", ".3f"),
    Column("folds_percent", "folds, %", "high", ".3f"),
    Column("jacobian_min", "least det\N{NO-BREAK SPACE}J", "low", ".2f"),
    Column("jacobian_max", "most det\N{NO-BREAK SPACE}J", "high", ".1f"),
    Column("inverse_consistency_mm", "inverse error, mm", "high", ".2f"),
    Column("displacement_max_mm", "longest shift, mm", "high", ".1f"),
    Column("affine_determinant", "affine det", "both", ".3f"),
    Column("lam", "λ", None, "g"),
    Column("seconds", "seconds", None, ".0f"),
    Column("peak_gigabytes", "memory, GB", None, ".1f"),
    Column("warnings", "warnings", None, ".0f"),
)
"""What the page shows where some pair has it."""


class Row(NamedTuple):
    """A pair as the page shows it.

    Attributes:
        name: the pair's.
        files: its two images, for readers.
        state: green, amber, red, failed, unfinished, or unknown of an earlier version's result.
        note: why it is so.
        values: numbers by the names of `COLUMNS`.
        report: a link to the report, relative to the page; None where there is none.
        picture: a JPEG; None where there is none.
    """

    name: str
    files: str
    state: str
    note: str
    values: dict[str, float]
    report: str | None
    picture: bytes | None


def write_group_page(path: Path, rows: Sequence[Row], *, title: str) -> None:
    """Write the page of many pairs, those that most need a look first.

    Raises:
        InputError: the page cannot be written.
    """
    columns = [c for c in COLUMNS if any(c.name in row.values for row in rows)]
    scores = {c.name: robust_z([r.values.get(c.name, np.nan) for r in rows]) for c in columns}
    shown = [_shown(row, index, columns, scores) for index, row in enumerate(rows)]
    shown.sort(key=lambda row: (row["rank"], -row["score"], row["name"]))
    for row in shown[_PICTURES:]:
        row["picture"] = None
    states = [row.state for row in rows]
    counts = [(state, states.count(state)) for state in _RANKS if state in states]
    write_page(
        path,
        "group.html",
        script=page_file("group.js"),
        styles=("page.css", "group.css"),
        title=title,
        counts=counts,
        total=len(rows),
        outliers=sum(row["outlier"] for row in shown),
        threshold=OUTLIER,
        histograms=[h for c in columns if (h := _histogram(c, rows, scores[c.name])) is not None],
        columns=columns,
        rows=shown,
    )


def robust_z(values: Sequence[float]) -> Float[np.ndarray, " n"]:
    """The robust z score of each value; 0 where it is NaN, or where few or equal values are given.

    Where more than half of the values are the same, the mean absolute deviation takes the place of
    the median absolute deviation, 1.2533 of it being a standard deviation of normal values.
    """
    array = np.asarray(values, float)
    known = array[np.isfinite(array)]
    if len(known) < _FEWEST:
        return np.zeros(len(array))
    distance = np.abs(known - np.median(known))
    spread = np.median(distance) / 0.6745 or 1.2533 * distance.mean()
    if not _varies(known):
        return np.zeros(len(array))
    return np.nan_to_num((array - np.median(known)) / spread, nan=0.0, posinf=0.0, neginf=0.0)


def _varies(values: Float[np.ndarray, " n"]) -> bool:
    """Whether numbers differ by more than rounding, as the determinants of rigid maps do not."""
    return bool(np.ptp(values) > _ROUNDING * np.abs(values).max())


def _badness(worse: Worse, z: float) -> float:
    """How far a number is on its worse side."""
    if worse is None:
        return 0.0
    return {"low": -z, "high": z, "both": abs(z)}[worse]


def _shown(row: Row, index: int, columns: Sequence[Column], scores) -> dict:
    """What the template needs of a row."""
    bad = {c.label: _badness(c.worse, float(scores[c.name][index])) for c in columns}
    most = max(bad, key=lambda label: bad[label]) if bad else ""
    score = max(bad.get(most, 0.0), 0.0)
    outlier = score > OUTLIER
    state = row.state if row.state in _RANKS else "unknown"
    first = state in _RANKS[:3]
    picture = None
    if row.picture is not None:
        picture = Markup("data:image/jpeg;base64," + base64.b64encode(row.picture).decode("ascii"))
    return {
        "name": row.name,
        "files": row.files.replace(" ← ", "\n← ").split("\n"),
        "state": state,
        "note": row.note,
        "report": row.report,
        "picture": picture,
        "score": score,
        "outlier": outlier,
        "outlier_of": most if outlier else "",
        "rank": _RANKS.index(state if first or not outlier else "outlier"),
        "cells": [_cell(c, row.values.get(c.name), bad[c.label] > OUTLIER) for c in columns],
    }


def _cell(column: Column, value: float | None, outlier: bool) -> dict:
    known = value is not None and np.isfinite(value)
    return {
        "label": column.label,
        "value": f"{value:.6g}" if known else "",
        "text": format(value, column.form) if known else "–",
        "outlier": outlier,
    }


def _histogram(column: Column, rows: Sequence[Row], scores) -> dict | None:
    """The bars of a number in a box of 240 × 60; None where it hardly varies."""
    values = np.array([row.values.get(column.name, np.nan) for row in rows])
    known = np.isfinite(values)
    if known.sum() < 2 or not _varies(values[known]):
        return None
    counts, edges = np.histogram(values[known], bins=_BINS)
    low, high = float(edges[0]), float(edges[-1])
    width = 240 / _BINS
    heights = [max(54 * n / counts.max(), 1.5 if n else 0) for n in counts]
    bars = [(f"{i * width + 0.5:.1f}", f"{56 - h:.1f}", f"{h:.1f}") for i, h in enumerate(heights)]
    far = [
        f"{240 * (v - low) / (high - low):.1f}"
        for v, z in zip(values[known], scores[known], strict=True)
        if _badness(column.worse, float(z)) > OUTLIER
    ]
    median = float(np.median(values[known]))
    return {
        "column": column,
        "bars": [bar for bar, n in zip(bars, counts, strict=True) if n],
        "width": f"{width - 1:.1f}",
        "outliers": sorted(set(far)),
        "count": len(far),
        "median_at": f"{240 * (median - low) / (high - low):.1f}",
        "texts": [format(v, column.form) for v in (low, median, high)],
    }
