"""validation.csv: one row for each validated step, ascending."""

import csv
from pathlib import Path
from typing import Any

from jaxreg.errors import InputError
from jaxreg.io.atomic import completed


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a CSV by its `step`, replacing rows of that step or later."""
    _write_rows(
        path, [*(r for r in read_rows(path) if int(r["step"]) < row["step"]), row], list(row)
    )


def forget_rows_after(path: Path, step: int) -> None:
    """Take rows of later steps out of a CSV: a run that fell back to `step` makes them again."""
    rows = read_rows(path)
    kept = [r for r in rows if int(r["step"]) <= step]
    if len(kept) < len(rows):
        _write_rows(path, kept, list(rows[0]))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no file.

    Raises:
        InputError: not readable, or a step that is no number.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if all(row["step"].isdigit() for row in rows):
            return rows
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as this run's table ({error}).") from error
    raise InputError(f"{path}: not this run's table: a step is no number.")


def _write_rows(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    with completed(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
