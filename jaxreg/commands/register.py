"""`jaxreg register`: two NIfTI or MGZ files of one or two subjects, or a table of pairs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, DetailedFolderOutput
from jaxreg.configuration.registration import (
    OPTIONAL_FILES,
    AdvancedSettings,
    InputSettings,
    OutputSettings,
    RegisterConfig,
    SubjectPairSettings,
    TransformSettings,
)
from jaxreg.errors import InputError
from jaxreg.io.files import require_file


@dataclass(frozen=True, kw_only=True)
class Input(InputSettings):
    """Masks, labels and contrasts of the two images, or a table of pairs."""

    pairs: Annotated[Path | None, tyro.conf.arg(metavar="TSV")] = None
    """Table of pairs instead of FIXED and MOVING (docs/register.md)."""
    rows: str | None = None
    """Rows of --pairs, such as 7 or 1-10,20; by default all."""
    retry: bool = False
    """Try pairs again that failed by their input (--pairs)."""


@dataclass(frozen=True, kw_only=True)
class Registration(SubjectPairSettings, TransformSettings):
    """What is computed, by which network, and how smooth it is."""

    also: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE …")] = ()
    """More images in the moving space, moved by the same map."""


@dataclass(frozen=True, kw_only=True)
class Output(OutputSettings, DetailedFolderOutput):
    """Where the results go, which of them are written, and what is printed."""

    out: Path
    """Folder of the results; each result appears when it is complete."""


@dataclass(frozen=True, kw_only=True)
class Advanced(AdvancedSettings):
    """How the deformation is found, and where many pairs are worked on."""

    cluster: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Dask scheduler for --pairs: tcp://HOST:PORT, or its file."""
    at_once: int | None = None
    """Pairs of --pairs at a time, each with its own memory; by default 2."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Register MOVING to FIXED, or each pair of a table, and write the results to --out.

    The images are NIfTI or MGZ files. Without any flag the bundled network registers a T1w and a
    T2w image of two subjects.
    """

    fixed: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[FIXED]")] = None
    """Fixed image: the results lie on its grid."""
    moving: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[MOVING]")] = None
    """Moving image."""
    input: Input = field(default_factory=Input)
    registration: Registration = field(default_factory=Registration)
    output: Output
    advanced: Advanced = field(default_factory=Advanced)

    def __post_init__(self):
        """Refuse settings that cannot be, whatever else is missing."""
        settings_of(self.input, self.registration, self.output, self.advanced)


def main(argv: Sequence[str]) -> int:
    """Register a pair, or many, and say where the results are; returns the exit code."""
    config = flags.parse(Config, argv, prog="jaxreg register")
    settings = settings_of(config.input, config.registration, config.output, config.advanced)
    if config.input.pairs is not None:
        if config.fixed is not None:
            raise InputError(f"--pairs: expected no FIXED beside it, got {config.fixed}.")
        if settings.also:
            raise InputError("--also: not read with --pairs.")
        return _register_table(config.input.pairs, config, settings)
    advanced, given = config.advanced, config.input
    unread = {
        "cluster": advanced.cluster,
        "at-once": advanced.at_once,
        "rows": given.rows,
        "retry": given.retry or None,
    }
    for name, value in unread.items():
        if value is not None:
            raise InputError(f"--{name}: read only with --pairs.")
    if config.fixed is None or config.moving is None:
        raise InputError("expected FIXED and MOVING, or --pairs TABLE.tsv.")
    run(config.fixed, config.moving, settings, config.output, every_lam=False)
    return 0


def require_at_once(at_once: int | None, cluster: str | None) -> None:
    """Raise InputError where so many pairs cannot be registered at a time."""
    if at_once is not None and cluster is not None:
        raise InputError("--at-once: not read with --cluster; start more workers.")
    if at_once is not None and at_once < 1:
        raise InputError(f"--at-once: expected at least 1, got {at_once}.")


def settings_of(*groups: object) -> RegisterConfig:
    """The settings of a registration that groups of flags make together."""
    values = {name: value for group in groups for name, value in vars(group).items()}
    names = RegisterConfig.__dataclass_fields__
    return RegisterConfig(**{name: values[name] for name in names if name in values})


def run(
    fixed: Path,
    moving: Path,
    settings: RegisterConfig,
    output: DetailedFolderOutput,
    *,
    every_lam: bool,
) -> None:
    """Register a pair as the flags say."""
    beside = (getattr(settings, name) for name in OPTIONAL_FILES)
    for path in (fixed, moving, *beside, *settings.also):
        if path is not None:
            require_file(path)
    from jaxreg.registration.clock import START, Clock
    from jaxreg.registration.run import register_files

    console = Console(output)
    clock = Clock(console.progress)
    clock.seconds[START] = time.process_time()
    finished = register_files(
        fixed,
        moving,
        output.out,
        settings,
        overwrite=output.overwrite,
        every_lam=every_lam,
        say=console.say,
        detail=console.detail,
        clock=clock,
    )
    console.result(finished.summary(output.out))


def _register_table(table: Path, config: Config, settings: RegisterConfig) -> int:
    """Register the pairs of a table; returns the exit code, which is not 0 if one failed."""
    at_once, cluster = config.advanced.at_once, config.advanced.cluster
    require_at_once(at_once, cluster)
    from jaxreg.registration.batch.batch import register_pairs
    from jaxreg.registration.batch.side_by_side import AT_ONCE

    console = Console(config.output)
    batch = register_pairs(
        table,
        config.output.out,
        settings,
        rows=config.input.rows,
        overwrite=config.output.overwrite,
        retry=config.input.retry,
        cluster=cluster,
        at_once=at_once or AT_ONCE,
        say=console.say,
        progress=console.progress,
    )
    console.result(batch._asdict())
    return batch.exit_code
