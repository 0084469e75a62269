"""Tables in TSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxreg.errors import InputError
from jaxreg.io.atomic import completed
from jaxreg.io.files import require_file

_OTHER_SEPARATORS = {"commas": ",", "semicolons": ";", "bars": "|", "blanks": None}
"""What tables are separated by that spreadsheets and other programs save."""


def read_table(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a TSV by column name, without the blanks around names and cells.

    Empty cells at the end of a line, and lines without any value, are left out.

    Raises:
        InputError: no such file, not text, or without one of `columns`.
    """
    require_file(table)
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{table}: not readable as UTF-8 text ({error}).") from error
    try:
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    except csv.Error as error:
        raise InputError(f"{table}: not readable as a table ({error}).") from error
    rows = [stripped for row in rows if any((stripped := _stripped(row)).values())]
    for row in rows:
        lacking = [c for c in columns if row.get(c) is None]
        if lacking:
            raise InputError(f"{table}: {_lacks(lacking[0], row)}")
    return rows


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a TSV, which appears when it is complete; the old one stays until then.

    Raises:
        InputError: it cannot be written.
    """
    with completed(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _lacks(column: str, row: dict) -> str:
    """What is wrong with a row without a value, or a table without the column itself."""
    names = [name for name in row if name is not None]
    if column in names:
        cells = ", ".join(row[name] for name in names if row[name] is not None)
        return f"expected a value of the column {column} in each row, got a row with {cells} alone."
    for separators, character in _OTHER_SEPARATORS.items():
        for name in names:
            if column in [part.strip(' "') for part in name.split(character)]:
                return (
                    f"expected columns that tabs separate, got {separators} in the header "
                    f"{name!r}; save the table as tab-separated text."
                )
    return f"expected the column {column}, got {', '.join(names)}."


def _stripped(row: dict) -> dict:
    """A row without blanks around its names and cells, and without nameless empty cells."""
    cells = {}
    for name, cell in row.items():
        if name is None:  # the cells beyond the header's
            beyond = [value for value in cell if value.strip()]
            if beyond:
                cells[name] = beyond
        elif name.strip() or (cell or "").strip():
            cells[name.strip()] = cell if cell is None else cell.strip()
    return cells
