"""Point lists: CSV files with the header x,y,z (RAS millimetres), further columns kept."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.errors import InputError


class PointTable(NamedTuple):
    """Points (RAS mm), and what stands beside them: the header and each row's further cells."""

    points: Float[np.ndarray, "n 3"]
    header: list[str]
    rest: list[list[str]]


def read_points(path: Path | str) -> PointTable:
    """The points in a CSV whose header starts with x,y,z.

    Raises:
        InputError: no such file, another header, no points, or a cell that is not a finite number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as a CSV file ({error}).") from error
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a CSV file ({error}).") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if header[:3] != ["x", "y", "z"]:
        raise InputError(f"{path}: expected the header x,y,z (RAS mm), got {','.join(header)!r}.")
    if len(rows) == 1:
        raise InputError(f"{path}: expected at least one point, got none.")
    for n, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise InputError(
                f"{path}: point {n}: expected {len(header)} cells, got {len(row)}: {row}."
            )
    points = np.array([[_number(path, n, c) for c in r[:3]] for n, r in enumerate(rows[1:], 1)])
    return PointTable(points, header, [row[3:] for row in rows[1:]])


def write_points(path: Path | str, table: PointTable) -> None:
    """Write points as CSV, to a millionth of a millimetre."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.header)
        for point, rest in zip(table.points, table.rest, strict=True):
            writer.writerow([*(f"{value:.6f}" for value in point), *rest])


def _number(path: Path | str, row: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{path}: point {row}: expected a finite number, got {cell!r}.")
    return value
