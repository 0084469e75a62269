"""Several prepared cohorts on one grid as one cohort, by links to their files.

    python experiments/join_cohorts.py COHORT COHORT … --out DIR

Subjects keep their names and splits; the scored structures must agree.
"""

import argparse
from pathlib import Path

from jaxreg.data.cohort import AUTOMATIC, Cohort, read_cohort
from jaxreg.errors import InputError
from jaxreg.io.atomic import completed_folder
from jaxreg.io.tables import write_table


def main() -> None:
    """Write the joined cohort's tables and link its subjects' folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohorts", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    cohorts = [read_cohort(folder) for folder in arguments.cohorts]
    if any(c.structures != cohorts[0].structures for c in cohorts):
        raise InputError("expected equal labels.tsv in all cohorts.")
    subjects = {p: (c, split) for c in cohorts for p, split in c.participants.items()}
    if len(subjects) < sum(len(c.participants) for c in cohorts):
        raise InputError("expected every participant in one cohort only.")
    if arguments.out.exists():
        raise InputError(f"{arguments.out}: expected a new folder.")
    with completed_folder(arguments.out) as folder:
        write_participants(folder, subjects)
        for subject, (cohort, _) in subjects.items():
            (folder / subject).symlink_to((cohort.folder / subject).resolve())


def write_participants(folder: Path, subjects: dict[str, tuple[Cohort, str]]) -> None:
    """Write the tables of a cohort of some subjects, each of a cohort and in a split."""
    rows = [
        (name, split, AUTOMATIC if name in cohort.automatic_labels else "n/a")
        for name, (cohort, split) in subjects.items()
    ]
    write_table(folder / "participants.tsv", ("participant_id", "split", "labels"), rows)
    first = next(iter(subjects.values()))[0].folder
    for name in ("labels.tsv", "dataset_description.json"):
        if (first / name).is_file():
            (folder / name).write_bytes((first / name).read_bytes())


if __name__ == "__main__":
    main()
