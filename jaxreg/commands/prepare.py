"""`jaxreg prepare`: a cohort from HCP, BIDS or IXI folders, or a table of paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxreg.data.prepare import prepare
from jaxreg.registration.linear.affine import register_affine


@dataclass(frozen=True)
class Config(prepare.PrepareConfig):
    """Make a cohort: reorient, mask, align to a common space, resample, normalise, label."""

    source: tyro.conf.Positional[Path]
    """Folder of the layout, or the table."""


def main(argv: Sequence[str]) -> None:
    """Prepare a cohort; people whose volumes are done already are passed."""
    config = tyro.cli(Config, prog="jaxreg prepare", args=list(argv))
    prepare.print_summary(prepare.prepare(config, register_affine))
