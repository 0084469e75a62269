"""Prepared cohorts on disk: participants and splits, scored structures, checked volumes in memory.

    cohort/participants.tsv   participant_id  split (train|val|test)
    cohort/labels.tsv         index  name
    cohort/sub-01/sub-01_T1w.nii.gz, sub-01_dseg.nii.gz, sub-01_mask.nii.gz (optional)

All volumes of a cohort share one grid.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxreg.errors import InputError
from jaxreg.io.atomic import is_plain
from jaxreg.io.checksums import file_sha256
from jaxreg.io.tables import read_table

SPLITS = ("train", "val", "test")
AUTOMATIC = "automatic"
"""In the columns mask and labels of participants.tsv: made by jaxreg's segmentation."""


@dataclass(frozen=True)
class Cohort:
    """A cohort's tables: identifiers → splits, scored labels → names.

    `automatic_labels` are the participants whose label maps a segmentation network made.
    """

    folder: Path
    participants: dict[str, str]
    structures: dict[int, str] = field(default_factory=dict)
    automatic_labels: frozenset[str] = frozenset()

    def file(self, participant: str, kind: str) -> Path:
        """Where a volume of a kind (a domain, `dseg`, `mask`) lies if there is one."""
        return self.folder / participant / f"{participant}_{kind}.nii.gz"

    def members(self, split: str, domain: str) -> list[str]:
        """Participants of a split who have a domain, sorted.

        Raises:
            InputError: no subject in the split, or none there with the domain.
        """
        subjects = subjects_of(self.participants, split)
        if not subjects:
            raise InputError(
                f"{self.folder / 'participants.tsv'}: no participant in split {split!r}; "
                f"it has {', '.join(sorted(set(self.participants.values())))}."
            )
        having = [p for p in subjects if self.file(p, domain).is_file()]
        if not having:
            raise InputError(
                f"{self.folder}: expected {domain} volumes in split {split!r} "
                f"(such as {self.file(subjects[0], domain)}), got none."
            )
        return having


def subjects_of(participants: Mapping[str, str], split: str) -> list[str]:
    """Participants of a split, sorted."""
    return sorted(name for name, own in participants.items() if own == split)


def read_cohort(folder: Path | str) -> Cohort:
    """The tables of a prepared cohort.

    Raises:
        InputError: no such folder or table, a missing column, an unknown split, a bad or repeated
            identifier.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such cohort folder.")
    table = folder / "participants.tsv"
    _check_prepared(folder, table)
    participants: dict[str, str] = {}
    automatic = set[str]()
    for row in read_table(table, ("participant_id", "split")):
        name, split = row["participant_id"], row["split"]
        if split not in SPLITS:
            raise InputError(f"{table}: {name}: expected split {'|'.join(SPLITS)}, got {split!r}.")
        if not is_plain(name):
            raise InputError(f"{table}: expected a plain participant_id, got {name!r}.")
        if name in participants:
            raise InputError(f"{table}: expected each participant once, got {name} again.")
        participants[name] = split
        if row.get("labels") == AUTOMATIC:
            automatic.add(name)
    if not participants:
        raise InputError(f"{table}: expected at least one participant, got none.")
    structures = read_structures(folder / "labels.tsv")
    return Cohort(folder, participants, structures, frozenset(automatic))


def first_command(folder: Path) -> str:
    """What to do with a folder of scans that nobody prepared, in words."""
    bids = _is_bids(folder)
    layout = " --layout=bids" if bids else ""
    return f"make a cohort of it first: jaxreg prepare {folder}{layout} --out DIR"


def _is_bids(folder: Path) -> bool:
    return any(folder.glob("sub-*/anat")) or any(folder.glob("sub-*/ses-*/anat"))


def _check_prepared(folder: Path, table: Path) -> None:
    """Refuse a folder of scans that nobody prepared, with the command that prepares them.

    Raises:
        InputError: there is no table, or that of a BIDS dataset, which has no column split.
    """
    first = first_command(folder)
    if not table.is_file():
        raise InputError(f"{table}: no such file; {folder} is no prepared cohort; {first}")
    if _is_bids(folder) and "split" not in next(iter(read_table(table, ())), {"split": ""}):
        raise InputError(
            f"{table}: expected the column split of a prepared cohort; this is a BIDS dataset; "
            f"{first}"
        )


def read_structures(table: Path) -> dict[int, str]:
    """Names of the structures scored, by label; none where there is no such table.

    Raises:
        InputError: a missing column, or an index that is no integer.
    """
    if not table.is_file():
        return {}
    rows = read_table(table, ("index", "name"))
    try:
        structures = {int(row["index"]): row["name"] for row in rows}
    except ValueError as error:
        raise InputError(f"{table}: expected integers in column index ({error}).") from error
    for label in structures:
        if abs(label) > np.iinfo(np.int32).max:
            raise InputError(f"{table}: expected labels in the range of int32, got {label}.")
    return structures


def automatic_line(cohort: Cohort, subjects: Iterable[str]) -> str | None:
    """What Dice of these subjects means where some of their labels are automatic, else None."""
    subjects = set(subjects)
    count = len(subjects & cohort.automatic_labels)
    if not count:
        return None
    return (
        f"the labels of {count} of {len(subjects)} subjects are automatic: Dice says how well two "
        "segmentations agree, and misses their common errors."
    )


def neighbour_pairs(fixed: Sequence[str], moving: Sequence[str]) -> list[tuple[str, str]]:
    """Each of `fixed` with the next of `moving` in sorted order, the last with the first.

    No subject is paired with itself.
    """
    moving = sorted(moving)
    pairs = []
    for subject in sorted(fixed):
        after = [m for m in moving if m > subject] + [m for m in moving if m < subject]
        if after:
            pairs.append((subject, after[0]))
    return pairs


def scoring_gaps(
    participants: Mapping[str, str],
    has: Callable[[str, str], bool],
    domains: tuple[str, str],
    *,
    structures: bool = True,
) -> list[str]:
    """Lines on what cannot be scored in val and test, and which numbers are missing then.

    `has` says whether a participant has a domain, or labels (`dseg`); `structures` whether any are
    named.
    """
    lines = []
    for split, lost in _LOST.items():
        subjects = subjects_of(participants, split)
        labelled = [p for p in subjects if has(p, "dseg")]
        fixed, moving = ([p for p in labelled if has(p, d)] for d in domains)
        contrast = next((d for d, o in zip(domains, (fixed, moving), strict=True) if not o), None)
        if not subjects:
            reason = "no subject"
        elif not structures:
            reason = "no structures in labels.tsv"
        elif not labelled:
            reason = f"none of {len(subjects)} subjects has labels"
        elif contrast is not None:
            reason = f"no subject with labels has a {contrast}"
        elif not neighbour_pairs(fixed, moving):
            reason = f"only {fixed[0]} has images and labels, and a pair takes two subjects"
        else:
            without = [p for p in subjects if p not in labelled]
            if without:
                lines.append(f"split {split}: without labels and not scored: {', '.join(without)}.")
            continue
        lines.append(f"split {split} cannot be scored ({reason}): {lost}.")
    return lines


_LOST = {
    "val": "training shows no validation Dice, and `eval --compare` cannot choose λ",
    "test": "`eval` computes no Dice",
}


def training_gap(
    participants: Mapping[str, str], has: Callable[[str, str], bool], domains: tuple[str, str]
) -> str | None:
    """Why a registration network cannot be trained on the train split, None where it can."""
    subjects = subjects_of(participants, "train")
    fixed, moving = ([p for p in subjects if has(p, d)] for d in domains)
    for domain, having in zip(domains, (fixed, moving), strict=True):
        if not having:
            return f"no subject in split train has a {domain}"
    if alone(fixed, moving):
        return f"a pair takes two subjects, and in split train only {moving[0]} has a {domains[1]}"
    return None


def alone(fixed: Sequence[str], moving: Sequence[str]) -> bool:
    """Whether one of `fixed` has no other subject among `moving` to be paired with."""
    return len(set(moving)) < 2 and bool(set(moving) & set(fixed))


def fingerprint(cohort: Cohort, files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over names and bytes of volumes and their masks: what a run was trained on."""
    digest = hashlib.sha256()
    for participant, kind in files:
        for path in (cohort.file(participant, k) for k in (kind, "mask", "ignore")):
            if path.is_file():
                digest.update(path.name.encode())
                digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()
