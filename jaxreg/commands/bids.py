"""`jaxreg bids`: the pairs of a BIDS data set, written as BIDS derivatives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, FolderOutput
from jaxreg.commands.register import require_at_once, settings_of
from jaxreg.configuration.bids import BidsSelection
from jaxreg.configuration.registration import (
    AdvancedSettings,
    Extraction,
    RegisterConfig,
    TransformKind,
    TransformSettings,
)
from jaxreg.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Selection(BidsSelection):
    """Which images of which subjects are registered to which."""

    extract: Extraction = "auto"
    """Find the brain; auto: in whole heads."""


@dataclass(frozen=True, kw_only=True)
class Registration(TransformSettings):
    """What is computed, by which network, and how smooth it is."""

    transform: TransformKind | None = None
    """Kind of transform; by default rigid, with --template deformable."""


@dataclass(frozen=True, kw_only=True)
class Output(FolderOutput):
    """Where the derivatives go, how large warps are, and what is printed."""

    out: Path
    """Folder of the results; each result appears when it is complete."""
    warp_spacing: float | None = None
    """Voxel size of written warps, in mm; by default that of the images."""


@dataclass(frozen=True, kw_only=True)
class Advanced(AdvancedSettings):
    """How the deformation is found, and where the pairs are worked on."""

    retry: bool = False
    """Try pairs again that failed by their input."""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Dask scheduler: tcp://HOST:PORT, or its file."""
    at_once: int | None = None
    """Pairs at a time, each with its own memory; by default 2."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Register the images of a BIDS data set and write BIDS derivatives to --out.

    Without --template, the T2w image of each subject and session is aligned rigidly with the T1w
    image of the same session. With --template, each T1w image is registered to that template.
    """

    dataset: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATASET")]
    """Folder of the BIDS data set."""
    selection: Selection = field(default_factory=Selection)
    registration: Registration = field(default_factory=Registration)
    output: Output
    advanced: Advanced = field(default_factory=Advanced)

    def __post_init__(self):
        """Refuse settings that cannot be, whatever else is missing."""
        self.settings()

    def settings(self) -> RegisterConfig:
        """The settings of every pair."""
        transform = self.registration.transform
        if transform is None:
            transform = "rigid" if self.selection.template is None else "deformable"
        given = {**vars(self.registration), "transform": transform}
        require_at_once(self.advanced.at_once, self.advanced.cluster)
        if transform != "deformable" and self.output.warp_spacing is not None:
            raise InputError(f"--warp-spacing: not read by a {transform} transform, a text file.")
        groups = (TransformSettings(**given), self.output, self.advanced, _Extract(self.selection))
        return settings_of(*groups)


class _Extract:
    """What of the selection is a setting of the registration."""

    def __init__(self, selection: Selection):
        self.extract = selection.extract


def main(argv: Sequence[str]) -> int:
    """Register and publish; returns the exit code, which is not 0 if a pair failed."""
    config = flags.parse(Config, argv, prog="jaxreg bids")
    from jaxreg.registration.batch.side_by_side import AT_ONCE
    from jaxreg.registration.bids.run import register_dataset

    console = Console(config.output)
    done = register_dataset(
        config.dataset,
        config.output.out,
        config.selection,
        config.settings(),
        overwrite=config.output.overwrite,
        retry=config.advanced.retry,
        cluster=config.advanced.cluster,
        at_once=config.advanced.at_once or AT_ONCE,
        say=console.say,
        progress=console.progress,
    )
    console.result(done.as_values())
    return done.batch.exit_code
