"""`jaxreg compare`: jaxreg beside ANTs, greedy, elastix and ConvexAdam on one pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.registration.compare_tools.compare import compare_files, table
from jaxreg.registration.compare_tools.external_tools import ENGINES


@dataclass(frozen=True, kw_only=True)
class Config(RegisterConfig):
    """One table of Dice (with labels), similarity, folds, seconds and peak memory.

    Every tool starts from the same affine, on the same grid, in a process of its own (extra
    `compare`). jaxreg's seconds are those of the deformable part, its programs compiled.
    """

    fixed: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIXED")]
    """Fixed image."""
    moving: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MOVING")]
    """Moving image."""
    tools: Annotated[str, tyro.conf.arg(name="with", metavar="A,B,…")] = ",".join(ENGINES)
    """Tools to run, of ants, greedy, elastix, convexadam."""


def main(argv: Sequence[str]) -> None:
    """Compare, and print the table."""
    config = tyro.cli(Config, prog="jaxreg compare", args=list(argv))
    engines = tuple(part for part in config.tools.split(",") if part)
    print(table(compare_files(config.fixed, config.moving, engines, config)))
