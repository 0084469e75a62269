"""`jaxreg register`: two NIfTI or MGZ files of one or two people, aligned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.registration.run import register_files
from jaxreg.registration.settings import RegisterConfig


@dataclass(frozen=True, kw_only=True)
class Config(RegisterConfig):
    """Register MOVING to FIXED; with --out DIR for the results.

    For two people: the velocity comes from a network (--model DIR) or from --optimize-only. For one
    person's own T1w and T2w, --transform rigid is enough. Brain masks help (--fixed-mask,
    --moving-mask); images that are brain-extracted already, background 0, need none.
    """

    fixed: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIXED")]
    """Fixed image: the results lie on its grid."""
    moving: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MOVING")]
    """Moving image."""
    out: Path
    """Folder of the results; it appears when they are complete."""
    overwrite: bool = False
    """Replace the run that is in --out."""


def main(argv: Sequence[str]) -> None:
    """Register a pair and say where the results are."""
    run(tyro.cli(Config, prog="jaxreg register", args=list(argv)), every_lam=False)


def run(config: Config, *, every_lam: bool) -> None:
    """Register as the flags say."""
    register_files(
        config.fixed,
        config.moving,
        config.out,
        config,
        overwrite=config.overwrite,
        every_lam=every_lam,
    )
