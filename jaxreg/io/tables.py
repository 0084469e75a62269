"""Tables in TSV files."""

import csv
from pathlib import Path

from jaxreg.errors import InputError
from jaxreg.io.files import require_file


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
            got = ", ".join(str(name) for name in row if name is not None)
            raise InputError(f"{table}: expected the column {lacking[0]}, got {got}.")
    return rows


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
