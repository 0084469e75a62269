"""`jaxreg apply`: saved transforms on an image, a label map or points, in one resampling."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, Printing


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is moved; one of --image, --labels and --points is given."""

    image: Path | None = None
    """Image to move; of a 4-D image each volume."""
    labels: Path | None = None
    """Label map to move, or a 4-D series of them."""
    points: Path | None = None
    """CSV with columns x,y,z (RAS mm), others kept; points go where the image goes."""
    reference: Path | None = None
    """Image whose grid the result lies on; for --image and --labels."""
    interpolation: Literal["nearest", "linear", "bspline", "label"] | None = None
    """Default: linear (images), nearest (labels); label smooths borders."""
    fill: float = 0.0
    """Value outside the field of view of what is moved."""
    points_convention: Literal["ras", "lps"] = "ras"
    """Sign of x and y in --points: lps as ANTs writes them."""
    inverse: bool = False
    """Go the other way, from the fixed to the moving space."""


@dataclass(frozen=True, kw_only=True)
class File:
    """Where the result is written."""

    out: Path
    """The result: NIfTI, or CSV for points."""


@dataclass(frozen=True, kw_only=True)
class Output(Printing, File):
    """Where the result goes, and what is printed."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Apply transforms to an image, a label map or points, all in one resampling.

    They are named as for antsApplyTransforms: the last one is applied first. With --inverse,
    affines are inverted exactly and fields numerically.
    """

    transforms: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE …")]
    """Warps (ITK vector NIfTI) and affines (.mat, .tfm, .txt, .xfm, .h5)."""
    input: Input = field(default_factory=Input)
    output: Output


_MOVED = {
    "points": "the moved points are",
    "labels": "the moved label map is",
    "image": "the moved image is",
}


def main(argv: Sequence[str]) -> None:
    """Apply, say what a numerical inverse left behind, and where the result is."""
    config = flags.parse(Config, argv, prog="jaxreg apply")
    from jaxreg.registration.apply import apply_files

    console, out = Console(config.output), config.output.out
    with console.progress.phase("apply"):
        remarks = apply_files(config.transforms, out=out, **vars(config.input))
    for line in remarks:
        console.say(line)
    kind = next(k for k in ("points", "labels", "image") if getattr(config.input, k) is not None)
    console.say(f"{_MOVED[kind]} in {out}")
    console.result({"out": out, "remarks": remarks})
