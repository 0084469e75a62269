"""results.csv read back as arrays, and whether it may stand in for a new evaluation."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.data.cohort import Cohort
from jaxreg.evaluation.report import COLUMNS

NO_REGISTRATION = ""
"""How results.csv writes the λ of no registration."""


class Sweep(NamedTuple):
    """A run's scores on a split: λ ascending, pairs and structures in the order of their lists.

    Attributes:
        lams: λ in [0, 1].
        pairs: (fixed, moving).
        structures: names.
        dice: in [0, 1]; NaN where one subject of the pair lacks the structure.
        plain_dice: the same with no registration.
        folds_percent: folding voxels in % of the fixed brain.
        sdlogj: standard deviation of log det J in the fixed brain.
        seconds: registration of the pair at one λ.
    """

    lams: list[float]
    pairs: list[tuple[str, str]]
    structures: list[str]
    dice: Float[np.ndarray, "l p s"]
    plain_dice: Float[np.ndarray, "p s"]
    folds_percent: Float[np.ndarray, "l p"]
    sdlogj: Float[np.ndarray, "l p"]
    seconds: Float[np.ndarray, "l p"]

    @property
    def fixed(self) -> list[str]:
        """The fixed subject of each pair."""
        return [pair[0] for pair in self.pairs]

    @property
    def mean_dice(self) -> Float[np.ndarray, "l p"]:
        """Mean over the structures that both subjects of a pair have."""
        return np.nanmean(self.dice, axis=-1)

    @property
    def plain_mean_dice(self) -> Float[np.ndarray, " p"]:
        """The same with no registration."""
        return np.nanmean(self.plain_dice, axis=-1)


def read_sweep(
    folder: Path,
    lams: Sequence[float],
    pairs: Sequence[tuple[str, str]],
    structures: Sequence[str],
) -> Sweep | None:
    """The sweep in `folder`/results.csv; None unless it has these λs, pairs and structures."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            return None
        rows = list(reader)
    levels = [NO_REGISTRATION, *(f"{lam:.6g}" for lam in lams)]
    if {row["lam"] for row in rows} != set(levels):
        return None
    if {(row["fixed"], row["moving"]) for row in rows} != set(pairs):
        return None
    if not {row["structure"] for row in rows} <= set(structures):
        return None
    at = {level: i for i, level in enumerate(levels)}
    pair_at = {pair: i for i, pair in enumerate(pairs)}
    structure_at = {name: i for i, name in enumerate(structures)}
    dice = np.full((len(levels), len(pairs), len(structures)), np.nan)
    whole = np.full((3, len(levels), len(pairs)), np.nan)
    for row in rows:
        place = at[row["lam"]], pair_at[row["fixed"], row["moving"]]
        dice[*place, structure_at[row["structure"]]] = float(row["dice"])
        whole[:, *place] = [float(row[k]) for k in ("folds_percent", "sdlogj", "seconds")]
    if np.isnan(whole).any():
        return None
    return Sweep(
        list(lams), list(pairs), list(structures), dice[1:], dice[0], *(w[1:] for w in whole)
    )


def reusable(
    folder: Path, parameters_sha256: str, cohort: Cohort, pairs: Sequence[tuple[str, str]]
) -> bool:
    """Whether the results in a folder are of these parameters and of this cohort as it is now."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        written = (folder / "results.csv").stat().st_mtime
        finished = (folder / "summary.json").stat().st_mtime >= written
    except (OSError, ValueError):
        return False  # no evaluation there
    same_data = Path(summary.get("data", "")).resolve() == cohort.folder.resolve()
    same_parameters = summary.get("parameters_sha256") == parameters_sha256
    if not (finished and same_data and same_parameters):
        return False
    subjects = {subject for pair in pairs for subject in pair}
    files = [cohort.folder / "labels.tsv"]
    files += [file for subject in subjects for file in (cohort.folder / subject).iterdir()]
    return all(file.stat().st_mtime <= written for file in files)
