"""`jaxreg apply`: saved transforms on an image, a label map or points, in one resampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.registration.apply import apply_files


@dataclass(frozen=True, kw_only=True)
class Config:
    """Apply transforms to an image, a label map or points, all in one resampling.

    They are named as for antsApplyTransforms: the last one is applied first. One of --image,
    --labels and --points is given.
    """

    transforms: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE")]
    """Warps (ITK vector NIfTI) and affines (.mat, .tfm, .txt, .xfm, .h5)."""
    image: Path | None = None
    """Image to move, linear interpolation, 0 outside its field of view."""
    labels: Path | None = None
    """Label map to move, nearest neighbour."""
    points: Path | None = None
    """CSV with the header x,y,z (RAS mm): points go where the image goes, moving to fixed."""
    reference: Path | None = None
    """Image whose grid the result lies on; for --image and --labels."""
    out: Path
    """The result: NIfTI, or CSV for points."""
    inverse: bool = False
    """Go the other way, fixed to moving: affines are inverted exactly, fields numerically."""


def main(argv: Sequence[str]) -> None:
    """Apply, and say what a numerical inverse left behind."""
    config = tyro.cli(Config, prog="jaxreg apply", args=list(argv))
    lines = apply_files(
        config.transforms,
        image=config.image,
        labels=config.labels,
        points=config.points,
        reference=config.reference,
        out=config.out,
        inverse=config.inverse,
    )
    for line in lines:
        print(line)
