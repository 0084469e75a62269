"""`jaxreg sweep`: `register --lam auto`, with the whole curve and every moved image written."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import register
from jaxreg.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Config(register.Folder):
    """Register MOVING to FIXED at every λ from 0 to 1 by 0.1.

    As `jaxreg register --lam auto`, and --out gets curve.tsv and the moved image of every λ too.
    """

    fixed: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIXED")]
    """Fixed image: the results lie on its grid."""
    moving: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MOVING")]
    """Moving image."""


def main(argv: Sequence[str]) -> None:
    """Sweep λ on a pair."""
    config = tyro.cli(Config, prog="jaxreg sweep", args=list(argv))
    if config.lam not in (None, "auto"):
        raise InputError(f"--lam: a sweep takes every λ, got {config.lam}.")
    config = dataclasses.replace(config, lam="auto")
    register.run(config.fixed, config.moving, config, every_lam=True)
