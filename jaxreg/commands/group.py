"""`jaxreg group`: one page and one table over the pairs that several jobs have registered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, Printing


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write DIR/index.html and DIR/results.tsv over the pairs of `jaxreg register --pairs`.

    Nothing is registered. Give it when the jobs of an array have ended.
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The --out of `jaxreg register --pairs`."""
    output: Printing = field(default_factory=Printing)


def main(argv: Sequence[str]) -> int:
    """Write the page and the table, and say where they are; returns the exit code."""
    config = flags.parse(Config, argv, prog="jaxreg group")
    from jaxreg.registration.batch.group import write_group

    console = Console(config.output)
    with console.progress.phase("group"):
        group = write_group(config.folder)
    counts = ", ".join(f"{count} {state}" for state, count in group.counts.items())
    console.say(f"{sum(group.counts.values())} pairs: {counts}")
    console.say(f"the page is {group.page}, the table {group.table}")
    console.result(group._asdict())
    return 0
