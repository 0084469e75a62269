"""Which subjects of a cohort a registration network is trained and validated on."""

from jaxreg.data.cohort import Cohort, neighbour_pairs, subjects_of
from jaxreg.data.pipeline import require_pairs
from jaxreg.data.prepare.freesurfer_labels import HINDBRAIN, STRUCTURES
from jaxreg.errors import InputError


def training_subjects(
    cohort: Cohort, domains: tuple[str, str], *, both_contrasts: bool
) -> tuple[list[str], list[str]]:
    """Who is fixed and who is moving in training; with `both_contrasts`, who moves has both.

    Raises:
        InputError: nobody in the train split has what is needed.
    """
    fixed, moving = (cohort.members("train", d) for d in domains)
    if both_contrasts:
        moving = [p for p in moving if p in fixed]
    if not moving:
        raise InputError(
            f"{cohort.folder}: expected subjects with both {domains[0]} and {domains[1]} in the "
            "train split (for a loss within one contrast), got none."
        )
    require_pairs(cohort, fixed, moving, domains[1])
    return fixed, moving


def labelled_subjects(
    cohort: Cohort, subjects: set[str], *, required: bool = True
) -> list[tuple[str, str]]:
    """The label maps that these subjects have, as keys of volumes.

    Raises:
        InputError: nobody has one though it is `required`, or the cohort names no structures or
            more than a byte can count.
    """
    found = [(p, "dseg") for p in sorted(subjects) if cohort.file(p, "dseg").is_file()]
    if not found and not required:
        return []
    if not found or not 0 < len(cohort.structures) < 256:
        raise InputError(
            f"{cohort.folder}: expected subjects with labels in the train split and 1 to 255 "
            f"structures in labels.tsv (for --label-weight, --synthetic-fraction and "
            f"--drop-hindbrain-fraction), got {len(found)} subjects and {len(cohort.structures)} "
            "structures."
        )
    return found


def require_labelled_pair(cohort: Cohort, fixed: list[str], moving: list[str]) -> None:
    """Raise InputError where no pair has labels on both sides, so that --label-weight acts."""
    first, second = (
        [p for p in subjects if cohort.file(p, "dseg").is_file()] for subjects in (fixed, moving)
    )
    if not any(one != other for one in first for other in second):
        raise InputError(
            f"{cohort.folder}: expected two subjects of the train split with labels for a pair "
            f"(for --label-weight), got {len(first)} fixed and {len(second)} moving ones; "
            "--teacher gives labels to the others."
        )


def hindbrain_of(cohort: Cohort) -> tuple[int, ...]:
    """What `--drop-hindbrain-fraction` cuts off, as the batches number the structures (from 1).

    Raises:
        InputError: no structure of HINDBRAIN, by FreeSurfer's number and name.
    """
    structures = cohort.structures or STRUCTURES
    known = {n for n in HINDBRAIN if structures.get(n) == STRUCTURES[n]}
    if not known:
        wanted = ", ".join(f"{n} {STRUCTURES[n]}" for n in HINDBRAIN)
        raise InputError(
            f"{cohort.folder / 'labels.tsv'}: expected some of {wanted} (for "
            "--drop-hindbrain-fraction), got none."
        )
    return tuple(i for i, n in enumerate(sorted(structures), 1) if n in known)


def validation_pairs(cohort: Cohort, domains: tuple[str, str]) -> list[tuple[str, str]]:
    """Neighbouring pairs of the val split, those with both domains and labels; may be empty."""
    subjects = subjects_of(cohort.participants, "val")
    labelled = [p for p in subjects if cohort.file(p, "dseg").is_file()]
    fixed, moving = ([p for p in labelled if cohort.file(p, d).is_file()] for d in domains)
    return neighbour_pairs(fixed, moving)
