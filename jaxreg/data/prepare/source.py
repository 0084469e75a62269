"""What a layout finds: the files of each subject, who is left out, and which choices were made."""

from pathlib import Path
from typing import NamedTuple

from jaxreg.data.image_choice import Choice

DOMAINS = ("T1w", "T2w", "FLAIR")
"""Contrasts that are looked for; the first that a subject has is the reference of the others."""


class Files(NamedTuple):
    """One subject's files; `split` only where the source itself says it."""

    participant: str
    images: dict[str, Path]
    mask: Path | None = None
    labels: Path | None = None
    split: str | None = None


class Source(NamedTuple):
    """What a source folder or table holds, subjects sorted by identifier."""

    subjects: list[Files]
    left_out: dict[str, str]
    """Who is left out, and why."""
    aligned: bool
    """The images of a subject are aligned to each other already."""
    freesurfer: bool
    """Labels carry FreeSurfer's numbers."""
    choices: tuple[Choice, ...] = ()
    """Where a subject had several sessions, images, masks or label maps of one kind."""
