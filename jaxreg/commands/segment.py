"""`jaxreg segment`: the brain and its structures in images of any contrast."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, FolderOutput
from jaxreg.errors import InputError, exit_code_of
from jaxreg.io.files import require_file


@dataclass(frozen=True, kw_only=True)
class Input:
    """A table instead of IMAGE."""

    images: Annotated[Path | None, tyro.conf.arg(metavar="TSV")] = None
    """Table with a column image: one path a line."""


@dataclass(frozen=True, kw_only=True)
class Output(FolderOutput):
    """Where the results go, and what is printed."""

    out: Path
    """Folder of the results; each result appears when it is complete."""
    brain: bool = False
    """Write brain.nii.gz as well: the image, 0 outside the brain."""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Which networks segment."""

    segmentation: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of segmentation networks; by default the bundled ones."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Find the brain and its structures in each IMAGE and write them to --out.

    The images are NIfTI or MGZ files of whole heads or brains, of any contrast, resolution and
    orientation. The results of one image lie in --out, those of several in --out/NAME, with a
    table of all volumes in --out. The same command goes on where several images were interrupted.
    """

    image: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[IMAGE …]")
    ] = ()
    """Images to segment."""
    input: Input = field(default_factory=Input)
    output: Output
    advanced: Advanced = field(default_factory=Advanced)


def main(argv: Sequence[str]) -> int:
    """Segment, and say where the results are; returns 1 or 75 if one of several failed."""
    config = flags.parse(Config, argv, prog="jaxreg segment")
    images = config.image
    if config.input.images is not None:
        if images:
            raise InputError(f"--images: expected no IMAGE beside it, got {images[0]}.")
        from jaxreg.io.tables import read_table

        folder = config.input.images.parent
        rows = read_table(config.input.images, ("image",))
        images = tuple(folder / row["image"] for row in rows)
    for path in images:
        require_file(path)
    from jaxreg.segmentation.batch import segment_files

    console = Console(config.output)
    with console.progress.phase("segment"):
        segmented = segment_files(
            images,
            config.output.out,
            networks=config.advanced.segmentation,
            brain=config.output.brain,
            overwrite=config.output.overwrite,
            say=console.say,
        )
    console.result(
        {
            "out": config.output.out,
            "images": segmented.done,
            "failed": segmented.failed,
        }
    )
    return exit_code_of(segmented.kinds.values())
