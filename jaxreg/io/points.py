"""Point lists: CSV files with columns x, y and z, others kept. In memory RAS millimetres.

In the file they are RAS millimetres too, or LPS millimetres as in the tables of
antsApplyTransformsToPoints, whose header is x,y,z,t.
"""

import csv
import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxreg.errors import InputError
from jaxreg.io.displacement_fields import LPS
from jaxreg.io.files import require_file

Convention = Literal["ras", "lps"]
"""Which way the coordinates of a table grow: right, front, up; or left, back, up (ITK, ANTs)."""


class PointTable(NamedTuple):
    """Points (RAS mm), and what stands beside them: the header and each row's cells, as read.

    `convention` is that of the file, and of the file that is written. The cells of x, y and z in
    `rows` give way to the points when the table is written.
    """

    points: Float[np.ndarray, "n 3"]
    header: list[str]
    rows: list[list[str]]
    convention: Convention = "ras"

    @property
    def looks_like_ants(self) -> bool:
        """Whether the table has the columns of antsApplyTransformsToPoints, which are LPS."""
        return [name.lower() for name in self.header[:4]] == ["x", "y", "z", "t"]


def read_points(path: Path | str, *, convention: Convention = "ras") -> PointTable:
    """The points in a CSV with one column x, one y and one z; they are of `convention`.

    Raises:
        InputError: no such file, another header, no points, or a cell of a point that is not a
            finite number.
    """
    require_file(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as a CSV file ({error}).") from error
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text), strict=True) if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a CSV file ({error}).") from error
    header = _without_empty_end([cell.strip() for cell in rows[0]]) if rows else []
    at = _coordinates(path, header)
    if len(rows) == 1:
        raise InputError(f"{path}: expected at least one point, got none.")
    rows = [_fitted(row, len(header)) for row in rows[1:]]
    for n, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(
                f"{path}: point {n}: expected {len(header)} cells, got {len(row)}: {row}."
            )
    points = np.array([[_number(path, n, row[k]) for k in at] for n, row in enumerate(rows, 1)])
    return PointTable(points * _signs(convention), header, rows, convention)


def points_of(points: ArrayLike) -> PointTable:
    """Points [n, 3] (RAS mm) as the table that a CSV file would hold.

    Raises:
        InputError: no points, or what are not finite numbers [n, 3].
    """
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"points: expected numbers [n, 3], got {error}.") from error
    if array.ndim != 2 or array.shape[1] != 3 or not len(array) or not np.isfinite(array).all():
        raise InputError(f"points: expected finite numbers [n, 3], got shape {array.shape}.")
    return PointTable(array, ["x", "y", "z"], [[""] * 3 for _ in array])


def write_points(path: Path | str, table: PointTable) -> None:
    """Write points as CSV in the table's convention, to a millionth of a millimetre."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.header)
        points = table.points * _signs(table.convention) + 0.0  # no -0.0
        at = _coordinates(path, table.header)
        for point, cells in zip(points, table.rows, strict=True):
            values = {k: f"{value:.6f}" for k, value in zip(at, point, strict=True)}
            writer.writerow([values.get(k, cell) for k, cell in enumerate(cells)])


def _coordinates(path: Path | str, header: list[str]) -> tuple[int, int, int]:
    """Where x, y and z stand in a header."""
    names = [name.lower() for name in header]
    if any(names.count(axis) != 1 for axis in "xyz"):
        apart = next((c for c in (";", "\t", " ") if {*"xyz"} <= {*",".join(names).split(c)}), None)
        advice = "" if apart is None else " The columns of points are separated by commas."
        raise InputError(
            f"{path}: expected the header x,y,z (RAS mm), with further columns anywhere, got "
            f"{','.join(header)!r}.{advice}"
        )
    return names.index("x"), names.index("y"), names.index("z")


def _signs(convention: Convention) -> np.ndarray:
    return LPS.astype(np.float64) if convention == "lps" else np.ones(3)


def _without_empty_end(cells: list[str]) -> list[str]:
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _fitted(row: list[str], length: int) -> list[str]:
    """A row without the empty cells that it has beyond the header's."""
    return [*row[:length], *_without_empty_end(row[length:])]


def _number(path: Path | str, row: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{path}: point {row}: expected a finite number, got {cell!r}.")
    return value
