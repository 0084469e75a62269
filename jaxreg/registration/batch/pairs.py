"""pairs.tsv: which files are registered to which, how, and the name of each pair's folder."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxreg.configuration.registration import OPTIONAL_FILES, RegisterConfig
from jaxreg.errors import InputError
from jaxreg.io.atomic import is_plain
from jaxreg.io.tables import read_table
from jaxreg.registration.batch.columns import (
    SETTINGS,
    config_of,
    is_file_of_start,
    own_columns,
    setting_of,
)

RESULTS, FAILURES, GROUP = "results.tsv", "failures", "index.html"
"""What lies beside the pairs' folders: the table, a file for each pair that failed, the page."""
_GIVEN_BY_NONE = ("", "n/a")
_LONGEST = 80
"""Of a name that is made from two file names, characters of each."""


class FilePair(NamedTuple):
    """A row of the table: the folder's name, and absolute paths by column; others are not given.

    `fixed` and `moving` are as the table has them; `settings` are the pair's own, JSON values.
    `own` are the cells of further columns, which are carried into the results.
    """

    name: str
    fixed: str
    moving: str
    files: dict[str, str]
    settings: dict[str, Any]
    own: dict[str, str] = {}

    def config(self, shared: RegisterConfig) -> RegisterConfig:
        """The settings of this pair, given those of all pairs.

        Raises:
            InputError: settings that contradict each other.
        """
        try:
            return config_of(shared, self.files, self.settings)
        except InputError as error:
            raise InputError(f"pair {self.name!r}: {error}") from error


def read_pairs(table: Path) -> list[FilePair]:
    """The pairs of a table in its order; paths are relative to the table's folder.

    Raises:
        InputError: no such table, a misspelt column, a cell that is no value of its column, a pair
            without both images, a name that is no plain one or that two pairs have, no pairs.
    """
    rows = read_table(table, ("fixed", "moving"))
    if not rows:
        raise InputError(f"{table}: expected at least one pair, got none.")
    for number, row in enumerate(rows, start=2):
        _check(table, number, row)
    names = _names(table, rows)
    return [
        _pair(table, n, name, row)
        for n, (name, row) in enumerate(zip(names, rows, strict=True), start=2)
    ]


def rows_of(text: str, count: int, *, say: Callable[[str], None] = print) -> list[int]:
    """The indices, from 0, of the rows that `--rows` names, such as 1-10,20 of `count` rows.

    A range that ends beyond the table, as that of the last job of an array may, ends with the
    table, and a line says so.

    Raises:
        InputError: no such rows.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None:
            raise InputError(f"--rows: expected rows such as 7 or 1-10,20; got {text!r}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= min(last, count):
            raise InputError(f"--rows: expected rows from 1 to {count}, got {part.strip()}.")
        if last > count:
            say(f"--rows: {part.strip()} ends with row {count}, the last one of the table")
            last = count
        found.update(range(first - 1, last))
    return sorted(found)


def _pair(table: Path, number: int, name: str, row: dict[str, str]) -> FilePair:
    """The pair of a row."""
    folder, where = table.absolute().parent, f"{table}, line {number}"
    settings = {c: setting_of(c, row[c], where) for c in SETTINGS if _given(row, c)}
    if "init" in settings and is_file_of_start(settings["init"]):
        settings["init"] = str(folder / settings["init"])
    columns = ("fixed", "moving", *OPTIONAL_FILES)
    files = {column: str(folder / row[column]) for column in columns if _given(row, column)}
    own = {column: row[column] or "" for column in own_columns(row, where)}
    return FilePair(name, row["fixed"], row["moving"], files, settings, own)


def _check(table: Path, number: int, row: dict[str, str]) -> None:
    own_columns(row, f"{table}, line {number}")
    for column in ("fixed", "moving"):
        if not _given(row, column):
            raise InputError(f"{table}: expected a file in column {column}, line {number}.")


def _given(row: dict[str, str], column: str) -> bool:
    return (row.get(column) or "") not in _GIVEN_BY_NONE


def _names(table: Path, rows: Sequence[dict[str, str]]) -> list[str]:
    """The name of each pair: as given, or made of both file names and, if taken, a number."""
    taken = {_key(name) for name in (RESULTS, FAILURES, GROUP)}
    for row in rows:
        if not _given(row, "name"):
            continue
        name = row["name"]
        if not is_plain(name) or name.startswith("."):
            raise InputError(f"{table}: expected a plain name of a folder, got {name!r}.")
        if _key(name) in taken:
            text = f"expected each name once, and not {RESULTS}, {FAILURES} or {GROUP}"
            raise InputError(f"{table}: {text}; got {name!r}.")
        taken.add(_key(name))
    return [row["name"] if _given(row, "name") else _made(row, taken) for row in rows]


def _made(row: dict[str, str], taken: set[str]) -> str:
    """A name that is not in `taken`, to which it is added."""
    stem = "_".join(_stem(row[column]) for column in ("fixed", "moving"))
    name, number = stem, 1
    while _key(name) in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(_key(name))
    return name


def _stem(file: str) -> str:
    """A file's name without suffixes, of letters, digits, dots and dashes."""
    stem = re.sub(r"\.(nii|nii\.gz|mgz|mgh)$", "", file.replace("\\", "/").split("/")[-1])
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip(".")
    return safe[:_LONGEST] or "image"


def _key(name: str) -> str:
    """What is the same of two names where a file system holds them for one."""
    return unicodedata.normalize("NFC", name).casefold()
