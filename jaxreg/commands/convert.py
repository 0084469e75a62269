"""`jaxreg convert`: a warp in the form that FSL or FreeSurfer reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxreg.registration.convert import convert_file


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write a warp as ITK (ANTs, SimpleITK), FSL (applywarp) or FreeSurfer (mri_convert -at)."""

    warp: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="WARP")]
    """ITK displacement field, such as warp.nii.gz of a run."""
    to: Literal["itk", "fsl", "freesurfer"]
    """Format of the result."""
    out: Path
    """The result: .nii.gz for itk and fsl, .mgz for freesurfer."""
    moving: Path | None = None
    """Moving image; FSL and FreeSurfer warps contain its geometry. Default: what provenance.json
    beside the warp says."""


def main(argv: Sequence[str]) -> None:
    """Convert a warp."""
    config = tyro.cli(Config, prog="jaxreg convert", args=list(argv))
    convert_file(config.warp, config.to, config.out, moving=config.moving)
