"""The page over the pairs of a folder: what their files say, as `report.group` shows it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jaxreg.errors import InputError
from jaxreg.io.atomic import require_writable
from jaxreg.io.tables import read_table
from jaxreg.registration.batch.failures import failure_of
from jaxreg.registration.batch.pairs import FAILURES, GROUP, RESULTS, FilePair
from jaxreg.registration.batch.results import COLUMNS, NONE, Outcome, join_results, outcomes_of
from jaxreg.registration.batch.resume import record_in
from jaxreg.registration.output.folder import THUMBNAIL
from jaxreg.registration.report.group import Row, write_group_page


class Group(NamedTuple):
    """The pairs of a folder.

    Attributes:
        page: index.html.
        table: results.tsv.
        counts: how many pairs are in each state, such as green, red or failed.
    """

    page: Path
    table: Path
    counts: dict[str, int]


def write_group(out: Path) -> Group:
    """Write results.tsv and index.html from the files of the pairs in `out`, whoever wrote them.

    The order is that of the results.tsv that is there; pairs that it lacks follow by name.

    Raises:
        InputError: no folder, no pairs in it, or no permission to write.
    """
    if not out.is_dir():
        raise InputError(f"{out}: no such folder.")
    require_writable(out / RESULTS)
    pairs = pairs_in(out)
    if not pairs:
        raise InputError(f"{out}: holds no pairs; give the --out of `register --pairs`.")
    outcomes = outcomes_of(out, (pair.name for pair in pairs))
    join_results(out, pairs, {})
    rows = write_page_of(out, pairs, outcomes)
    states = [row.state for row in rows]
    return Group(out / GROUP, out / RESULTS, {state: states.count(state) for state in states})


def write_page_of(
    out: Path, pairs: Iterable[FilePair], outcomes: Mapping[str, Outcome]
) -> list[Row]:
    """Write index.html over the pairs that have an outcome; returns its rows.

    Raises:
        InputError: the page cannot be written.
    """
    rows = [_row(out, pair, outcomes[pair.name]) for pair in pairs if pair.name in outcomes]
    write_group_page(out / GROUP, rows, title=f"Pairs in {out.name}")
    return rows


def pairs_in(out: Path) -> list[FilePair]:
    """The pairs that were tried in a folder."""
    named: dict[str, FilePair] = {}
    if (out / RESULTS).is_file():
        for row in read_table(out / RESULTS, ("name", "fixed", "moving")):
            own = {c: "" if cell == NONE else cell for c, cell in row.items() if c not in COLUMNS}
            named[row["name"]] = FilePair(row["name"], row["fixed"], row["moving"], {}, {}, own)
    with os.scandir(out) as found:
        folders = sorted(entry.name for entry in found if entry.is_dir())
    failed = sorted(path.stem for path in (out / FAILURES).glob("*.json"))
    for name in (*folders, *failed):
        if name in named or name.startswith("."):
            continue
        record, failure = record_in(out / name), failure_of(out, name)
        if record is not None:
            command = record["command"]
            named[name] = FilePair(name, command["fixed"], command["moving"], {}, {})
        elif failure is not None:
            named[name] = FilePair(name, failure.fixed, failure.moving, {}, {})
    return list(named.values())


def _row(out: Path, pair: FilePair, outcome: Outcome) -> Row:
    """What the page shows of a pair."""
    folder = out / pair.name
    done = outcome.status == "done"
    note = "; ".join([*outcome.verdict_reasons, *outcome.warnings])
    values = dict(outcome.numbers)
    if outcome.seconds is not None:
        values["seconds"] = outcome.seconds
    if outcome.peak_gigabytes is not None:
        values["peak_gigabytes"] = outcome.peak_gigabytes
    if done:
        values["warnings"] = float(len(outcome.warnings))
    picture = folder / THUMBNAIL
    return Row(
        name=pair.name,
        files=f"{Path(pair.fixed).name} ← {Path(pair.moving).name}",
        state=(outcome.verdict or "unknown") if done else outcome.status,
        note=note if done else f"{outcome.kind}: {outcome.reason}",
        values=values,
        report=f"{quote(pair.name)}/report.html" if (folder / "report.html").is_file() else None,
        picture=picture.read_bytes() if done and picture.is_file() else None,
    )
