"""Tables in TSV files."""

import csv
from pathlib import Path

from jaxreg.errors import InputError


def read_table(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a TSV by column name.

    Raises:
        InputError: no such file, not text, or without one of `columns`.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{table}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{table}: not readable as UTF-8 text ({error}).") from error
    try:
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    except csv.Error as error:
        raise InputError(f"{table}: not readable as a table ({error}).") from error
    for row in rows:
        lacking = [c for c in columns if row.get(c) is None]
        if lacking:
            raise InputError(f"{table}: expected the column {lacking[0]}, got {row}.")
    return rows
