"""`jaxreg register`: two NIfTI or MGZ files of one or two people, aligned; or a table of pairs."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import InputError
from jaxreg.registration.batch.batch import register_pairs
from jaxreg.registration.register import Clock
from jaxreg.registration.run import register_files


@dataclass(frozen=True, kw_only=True)
class Folder(RegisterConfig):
    """Settings of a registration, and where it goes."""

    out: Path
    """Folder of the results; it appears when they are complete."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def settings(self) -> RegisterConfig:
        """The settings alone, which decide the result; where it goes does not."""
        names = RegisterConfig.__dataclass_fields__
        return RegisterConfig(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Config(Folder):
    """Register MOVING to FIXED, or each pair of a table (--pairs); with --out DIR for the results.

    For two people: the velocity comes from the network that comes with jaxreg, from another one
    (--model DIR) or from --optimize-only. For one person's own T1w and T2w, --transform rigid is
    enough. Brain masks help (--fixed-mask,
    --moving-mask); images that are brain-extracted already, background 0, need none.
    """

    fixed: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[FIXED]")] = None
    """Fixed image: the results lie on its grid."""
    moving: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[MOVING]")] = None
    """Moving image."""
    pairs: Annotated[Path | None, tyro.conf.arg(metavar="TABLE.tsv")] = None
    """Instead of FIXED and MOVING, a table with the columns fixed and moving, and where wanted
    name, fixed_mask, moving_mask, fixed_ignore, moving_ignore, fixed_labels, moving_labels (paths
    from the table's folder). Each pair goes to --out/NAME, their numbers to --out/results.tsv; the
    same command again does what is not done yet. Exit code 1 if a pair failed."""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """With --pairs: run them on a Dask cluster, tcp://HOST:PORT or a scheduler file (extra
    cluster)."""


def main(argv: Sequence[str]) -> int:
    """Register a pair, or many, and say where the results are; returns the exit code."""
    config = tyro.cli(Config, prog="jaxreg register", args=list(argv))
    if config.pairs is not None:
        if config.fixed is not None:
            raise InputError(f"--pairs: expected no FIXED beside it, got {config.fixed}.")
        return register_pairs(
            config.pairs,
            config.out,
            config.settings(),
            overwrite=config.overwrite,
            cluster=config.cluster,
            say=functools.partial(print, flush=True),
        )
    if config.cluster is not None:
        raise InputError("--cluster: read only with --pairs.")
    if config.fixed is None or config.moving is None:
        raise InputError("expected FIXED and MOVING, or --pairs TABLE.tsv.")
    run(config.fixed, config.moving, config, every_lam=False)
    return 0


def run(fixed: Path, moving: Path, config: Folder, *, every_lam: bool) -> None:
    """Register a pair as the flags say."""
    clock = Clock()
    clock.seconds["start (Python, imports)"] = time.process_time()
    register_files(
        fixed,
        moving,
        config.out,
        config.settings(),
        overwrite=config.overwrite,
        every_lam=every_lam,
        clock=clock,
    )
