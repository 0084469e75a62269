"""`jaxreg convert`: a warp in the form that FSL or FreeSurfer reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, Printing


@dataclass(frozen=True, kw_only=True)
class Input:
    """What the warp alone does not say."""

    moving: Path | None = None
    """Moving image, whose geometry FSL and FreeSurfer warps contain."""


@dataclass(frozen=True, kw_only=True)
class File:
    """Where the result is written."""

    to: Literal["itk", "fsl", "freesurfer"]
    """Format of the result: itk, fsl or freesurfer."""
    out: Path
    """The result: .nii.gz for itk and fsl, .mgz for freesurfer."""


@dataclass(frozen=True, kw_only=True)
class Output(Printing, File):
    """The format, where the result goes, and what is printed."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write a warp as ITK (ANTs, SimpleITK), FSL (applywarp) or FreeSurfer (mri_convert -at).

    Without --moving, the geometry of the moving image is that in provenance.json beside the warp.
    """

    warp: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="WARP")]
    """ITK displacement field, such as warp.nii.gz of a run."""
    input: Input = field(default_factory=Input)
    output: Output


def main(argv: Sequence[str]) -> None:
    """Convert a warp, and say where it is."""
    config = flags.parse(Config, argv, prog="jaxreg convert")
    from jaxreg.registration.convert import convert_file

    console, output = Console(config.output), config.output
    with console.progress.phase("convert"):
        lines = convert_file(config.warp, output.to, output.out, moving=config.input.moving)
    for line in lines:
        console.say(line)
    console.say(f"the warp is in {output.out}, in the form {output.to}")
    console.result({"out": output.out, "to": output.to, "remarks": lines})
