"""pairs.tsv: which files are registered to which, and the name of each pair's folder."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxreg.configuration.registration import OPTIONAL_FILES
from jaxreg.errors import InputError
from jaxreg.io.atomic import is_plain
from jaxreg.io.tables import read_table

RESULTS = "results.tsv"
_COLUMNS = ("name", "fixed", "moving", *OPTIONAL_FILES)
_GIVEN_BY_NONE = ("", "n/a")
_LONGEST = 80
"""Of a name that is made from two file names, characters of each."""


class FilePair(NamedTuple):
    """A row of the table: the folder's name, and absolute paths by column; others are not given.

    `fixed` and `moving` are as the table has them.
    """

    name: str
    fixed: str
    moving: str
    files: dict[str, str]


def read_pairs(table: Path) -> list[FilePair]:
    """The pairs of a table in its order; paths are relative to the table's folder.

    Raises:
        InputError: no such table, an unknown column, a pair without both images, a name that is no
            plain one or that two pairs have, no pairs.
    """
    rows = read_table(table, ("fixed", "moving"))
    if not rows:
        raise InputError(f"{table}: expected at least one pair, got none.")
    for number, row in enumerate(rows, start=2):
        _check(table, number, row)
    folder = table.absolute().parent
    names = _names(table, rows)
    return [
        FilePair(
            name,
            row["fixed"],
            row["moving"],
            {
                c: str(folder / row[c])
                for c in ("fixed", "moving", *OPTIONAL_FILES)
                if _given(row, c)
            },
        )
        for name, row in zip(names, rows, strict=True)
    ]


def _check(table: Path, number: int, row: dict[str, str]) -> None:
    unknown = [column for column in row if column not in _COLUMNS]
    if unknown:
        raise InputError(
            f"{table}: expected the columns {', '.join(_COLUMNS)}; got "
            f"{unknown[0] or 'more values than columns'!r} (line {number})."
        )
    for column in ("fixed", "moving"):
        if not _given(row, column):
            raise InputError(f"{table}: expected a file in column {column}, line {number}.")


def _given(row: dict[str, str], column: str) -> bool:
    return (row.get(column) or "") not in _GIVEN_BY_NONE


def _names(table: Path, rows: Sequence[dict[str, str]]) -> list[str]:
    """The name of each pair: as given, or made of both file names and, if taken, a number."""
    taken = {_key(RESULTS)}
    for row in rows:
        if not _given(row, "name"):
            continue
        name = row["name"]
        if not is_plain(name) or name.startswith("."):
            raise InputError(f"{table}: expected a plain name of a folder, got {name!r}.")
        if _key(name) in taken:
            raise InputError(f"{table}: expected each name once, and not {RESULTS}; got {name!r}.")
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
