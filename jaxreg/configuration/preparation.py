"""What the preparation of a cohort is: which scans, onto which grid, dealt into which splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from jaxreg.errors import InputError, require_choice

Layout = Literal["bids", "hcp", "ixi", "table"]


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """Where the scans are, and what their labels mean."""

    layout: Layout
    """How the scans are stored; docs/prepare.md describes each."""
    labels: str | None = None
    """What label numbers mean: freesurfer, own or a TSV (index, name)."""


@dataclass(frozen=True, kw_only=True)
class CohortSettings:
    """The grid and the splits of the cohort."""

    spacing: float = 2.0
    """Isotropic voxel size of the cohort, in millimetres."""
    split: str | None = None
    """Subjects as TRAIN/VAL/TEST, such as 800/50/191; by default 80/10/10 %."""
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
        if not 0.5 <= self.spacing <= 20:
            raise InputError(f"--spacing: expected 0.5 to 20 mm, got {self.spacing}.")
        if self.seed < 0:
            raise InputError(f"--seed: expected at least 0, got {self.seed}.")
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"--jobs: expected at least 1, got {self.jobs}.")
        if self.split is not None:
            parse_split(self.split)


def parse_split(text: str) -> tuple[int, int, int]:
    """(train, val, test) of a text such as 800/50/191."""
    parts = text.split("/")
    if len(parts) != 3 or not all(p.isdecimal() for p in parts) or int(parts[0]) < 1:
        raise InputError(f"--split: expected TRAIN/VAL/TEST such as 800/50/191, got {text!r}.")
    train, val, test = map(int, parts)
    return train, val, test
