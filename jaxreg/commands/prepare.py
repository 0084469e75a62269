"""`jaxreg prepare`: a cohort from HCP, BIDS or IXI folders, or a table of paths."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, Printing
from jaxreg.configuration.preparation import CohortSettings, PrepareConfig, ScanSettings


@dataclass(frozen=True, kw_only=True)
class CohortFolder:
    """Where the cohort is written."""

    out: Path
    """Folder of the cohort: a new one, or one to be continued."""


@dataclass(frozen=True, kw_only=True)
class Output(Printing, CohortFolder):
    """Where the cohort goes, and what is printed."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Make a cohort: reorient, mask, align to a common space, resample, normalise, label.

    Subjects whose volumes are complete already are passed, so the same command continues.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder of the data set, or the table."""
    input: ScanSettings
    cohort: CohortSettings = field(default_factory=CohortSettings)
    output: Output

    def __post_init__(self):
        """Refuse settings that cannot be, whatever else is missing."""
        if self.input.layout is not None:
            self.settings()

    def settings(self) -> PrepareConfig:
        """The groups of flags as one configuration."""
        own = {**vars(self.input), **vars(self.cohort)}
        return PrepareConfig(source=self.source, out=self.output.out, **own)


def main(argv: Sequence[str]) -> None:
    """Prepare a cohort."""
    config = flags.parse(Config, argv, prog="jaxreg prepare")
    from jaxreg.data.prepare.brains import no_finder
    from jaxreg.data.prepare.prepare import prepare
    from jaxreg.registration.linear.affine import register_affine

    console, settings = Console(config.output), config.settings()
    find = no_finder
    if settings.segments:
        from jaxreg.segmentation.networks import brain_finder

        find = brain_finder(settings.segmentation)
    summary = prepare(
        settings, register_affine, find=find, progress=console.progress, say=console.say
    )
    for line in summary.lines():
        console.say(line)
    choices = [choice._asdict() for choice in summary.choices]
    console.result(summary._asdict() | {"choices": choices})
