"""Several prepared cohorts on one grid as one cohort, by links to their files.

    python experiments/join_cohorts.py COHORT COHORT … --out DIR

Subjects keep their names and splits; the scored structures must agree.
"""

import argparse
from pathlib import Path

from jaxreg.data.cohort import read_cohort
from jaxreg.errors import InputError


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
    arguments.out.mkdir(parents=True)
    rows = [f"{subject}\t{split}" for subject, (_, split) in subjects.items()]
    table = "\n".join(["participant_id\tsplit", *rows]) + "\n"
    (arguments.out / "participants.tsv").write_text(table)
    for name in ("labels.tsv", "dataset_description.json"):
        (arguments.out / name).write_bytes((cohorts[0].folder / name).read_bytes())
    for subject, (cohort, _) in subjects.items():
        (arguments.out / subject).symlink_to((cohort.folder / subject).resolve())


if __name__ == "__main__":
    main()
