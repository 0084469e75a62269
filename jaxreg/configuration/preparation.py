"""What the preparation of a cohort is: which scans, onto which grid, dealt into which splits."""

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from jaxreg.configuration.registration import Extraction
from jaxreg.errors import InputError, require_choice

AUTO = "auto"
"""Label maps are made by segmentation where there are none."""
Layout = Literal["bids", "hcp", "ixi", "table"]


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """Where the scans are, and what their labels mean."""

    layout: Layout
    """How the scans are stored: bids, hcp, ixi or table (docs/prepare.md)."""
    labels: str | None = None
    """What label numbers mean: freesurfer, own, a TSV (index, name); or auto."""
    entities: str | None = None
    """Which of several BIDS images is taken: acq=highres,run=1,…"""
    extract: Extraction = "auto"
    """Find the brain; auto: in whole heads."""
    segmentation: Path | None = None
    """Networks that find brains: a folder; by default the bundled ones."""


@dataclass(frozen=True, kw_only=True)
class CohortSettings:
    """The grid and the splits of the cohort."""

    spacing: float = 2.0
    """Isotropic voxel size of the cohort, in millimetres."""
    split: str | None = None
    """TRAIN/VAL/TEST in per cent or subjects; by default 80/10/10."""
    seed: int = 0
    """Seed of the random split."""
    template: Path | None = None
    """Image of the common space; by default the mean of up to 20 subjects."""
    jobs: int | None = None
    """Subjects worked on at a time; by default the number of cores."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(CohortSettings, ScanSettings):
    """Make a cohort from scans: one space, one grid, intensities, labels, splits."""

    source: Path
    """Folder of the data set, or the table."""
    out: Path
    """Folder of the cohort: a new one, or one to be continued with the same settings."""

    def __post_init__(self):
        """Refuse what cannot be meant."""
        require_choice("layout", self.layout, get_args(Layout))
        require_choice("extract", self.extract, get_args(Extraction))
        if self.segmentation is not None and not self.segments:
            raise InputError(
                "--segmentation: read only with --extract auto or always, or --labels auto."
            )
        if not 0.5 <= self.spacing <= 20:
            raise InputError(f"--spacing: expected 0.5 to 20 mm, got {self.spacing}.")
        if self.seed < 0:
            raise InputError(f"--seed: expected at least 0, got {self.seed}.")
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"--jobs: expected at least 1, got {self.jobs}.")
        if self.split is not None:
            parse_split(self.split)
        if self.entities is not None:
            parse_entities(self.entities)
            if self.layout != "bids":
                raise InputError(f"--entities: read only with --layout bids, not {self.layout}.")

    @property
    def segments(self) -> bool:
        """Whether a segmentation may be needed."""
        return self.extract != "never" or self.labels == AUTO


def parse_entities(text: str) -> dict[str, tuple[str, ...]]:
    """Entity → the values that are wanted, the first most, of a text such as acq=highres,run=1.

    An entity that stands there twice has two values; an empty value is for images without it.
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        entity, equals, value = (piece.strip() for piece in part.partition("="))
        plain = entity.isalnum() and all(c.isalnum() or c in "-._+" for c in value)
        if not equals or not plain:
            raise InputError(
                "--entities: expected ENTITY=VALUE,…, such as "
                f"acq=highres,run=1 (acq= for images without acq-), got {text!r}."
            )
        found[entity] = (*found.get(entity, ()), value)
    return found


def parse_split(text: str) -> tuple[Fraction, ...]:
    """The three numbers of a text such as 800/50/191 or 0.8/0.1/0.1, or four of them."""
    parts: list[Fraction] = []
    with contextlib.suppress(ValueError):
        parts += [Fraction(part) for part in text.replace("%", "").split("/")]
    if len(parts) not in (3, 4) or min(parts) < 0 or parts[0] == 0:
        raise InputError(
            "--split: expected TRAIN/VAL/TEST such as 80/10/10 (per cent) or the numbers of "
            f"subjects, TRAIN above 0, got {text!r}."
        )
    return tuple(parts)


def split_counts(text: str, subjects: int) -> tuple[int, int, int]:
    """(train, val, test) of so many subjects; a fourth number of the text is for no split.

    Whole numbers that add up to the subjects are counts. Numbers that add up to 100 are per cent,
    and those with a point that add up to 1 shares: each part is then rounded, but for train, which
    gets the rest. Of three subjects and more, no part that was asked for gets none.

    Raises:
        InputError: the numbers add up to something else, or leave nobody to train on.
    """
    parts = parse_split(text)
    total = sum(parts)
    whole = all(part.denominator == 1 for part in parts)
    if whole and total == subjects:
        train, val, test = map(int, parts[:3])
        return train, val, test
    if total != 100 and (whole or total != 1):
        added = " + ".join(f"{float(part):g}" for part in parts)
        rest = subjects - total
        hint = f" Is {text}/{rest} meant, with {rest} in no split?" if whole and rest > 0 else ""
        raise InputError(
            f"--split {text}: {added} = {float(total):g}; expected the number of subjects, which "
            f"is {subjects}, or 100 for per cent, or 1 for shares such as 0.8/0.1/0.1."
            f"{hint if len(parts) == 3 else ''}"
        )
    others = [
        max(int(subjects >= 3 and part > 0), round(subjects * part / total)) for part in parts[1:]
    ]
    train = subjects - sum(others)
    if train < 1:
        raise InputError(f"--split {text}: of {subjects} subjects it leaves none in train.")
    return train, others[0], others[1]
