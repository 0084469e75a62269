"""`jaxreg sweep`: `register --lam auto`, with the whole curve and every moved image written."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from jaxreg.commands import register
from jaxreg.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Config(register.Config):
    """Register MOVING to FIXED at every λ from 0 to 1 by 0.1.

    As `jaxreg register --lam auto`, and --out gets curve.tsv and the moved image of every λ too.
    """


def main(argv: Sequence[str]) -> None:
    """Sweep λ on a pair."""
    config = tyro.cli(Config, prog="jaxreg sweep", args=list(argv))
    if config.lam not in (None, "auto"):
        raise InputError(f"--lam: a sweep takes every λ, got {config.lam}.")
    register.run(dataclasses.replace(config, lam="auto"), every_lam=True)
