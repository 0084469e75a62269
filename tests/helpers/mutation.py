"""Are the tests worth something? Mutants of the mathematics, and how many of them the tests kill.

`python tests/helpers/mutation.py --count=150` copies the project, takes a seeded sample of all
mutants that Cosmic Ray makes of `spatial.py` and `losses/` (`pip install cosmic-ray`), runs the
tests of the changed module against each, and prints the survivors. Mutants of annotations are left
out: they change no result. With `--session=FILE` a run that was cut off goes on.
"""

import argparse
import ast
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from cosmic_ray.commands import init  # pyright: ignore[reportMissingImports]
from cosmic_ray.mutating import mutate_and_test  # pyright: ignore[reportMissingImports]
from cosmic_ray.work_db import WorkDB, use_db  # pyright: ignore[reportMissingImports]
from cosmic_ray.work_item import WorkItem  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "spatial": "spatial gradients networks metrics",
    "intensity": "losses gradients",
    "soft_dice": "soft_dice objective",
    "sampling": "losses objective",
    "mind": "mind gradients losses",
    "mutual_information": "losses local_mi gradients",
    "ngf": "ngf gradients losses",
    "objective": "objective soft_dice losses recovery",
    "patch_nce": "losses gradients objective",
    "similarity": "objective losses",
    "regularizers": "losses gradients objective",
}
"""The test modules that answer for a module, the likeliest first."""


def main() -> None:
    """Run what is left of the sample and print the outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--session", type=Path, help="SQLite file of the run, to go on with it")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a mutant's tests")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        session = (arguments.session or Path(scratch) / "session.sqlite").absolute()
        copy_project(Path(scratch) / "project")
        os.chdir(Path(scratch) / "project")
        with use_db(str(session)) as database:
            if database.num_work_items == 0:
                draw_sample(database, arguments.count, arguments.seed)
            for number, item in enumerate(database.pending_work_items):
                result = mutate_and_test(item.mutations, command(item), arguments.timeout)
                database.set_result(item.job_id, result)
                outcome = "killed" if result.is_killed else "survived"
                print(f"{number + 1}: {words(item)}: {outcome}", flush=True)
            report(database)


def copy_project(target: Path) -> None:
    """The files under version control, as they lie in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((ROOT / name).read_bytes())


def draw_sample(database: WorkDB, count: int, seed: int) -> None:
    """Put `count` of all mutants into the database, fewer where there are not so many."""
    losses = (f"jaxreg/losses/{name}.py" for name in TESTS if name != "spatial")
    init([Path("jaxreg/spatial.py"), *map(Path, losses)], database, {})
    items = [item for item in database.work_items if not in_annotation(item)]
    items.sort(key=lambda item: (words(item), item.mutations[0].occurrence))
    sample = random.Random(seed).sample(items, min(count, len(items)))
    print(f"{len(sample)} of {len(items)} mutants")
    database.clear()
    database.add_work_items(sample)


def in_annotation(item: WorkItem) -> bool:
    """Whether a mutant changes a type annotation."""
    (mutation,) = item.mutations
    tree = ast.parse(mutation.module_path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if isinstance(annotation, ast.expr):
            first = annotation.lineno, annotation.col_offset
            last = annotation.end_lineno, annotation.end_col_offset
            if first <= mutation.start_pos and mutation.end_pos <= last:
                return True
    return False


def command(item: WorkItem) -> str:
    """The tests of the changed module, up to the first that fails."""
    names = TESTS[item.mutations[0].module_path.stem].split()
    files = " ".join(str(next(Path("tests").rglob(f"test_{name}.py"))) for name in names)
    return f"{sys.executable} -m pytest -x -q -p no:cacheprovider {files}"


def words(item: WorkItem) -> str:
    """A mutant in words: file, line and operator."""
    (mutation,) = item.mutations
    where = f"{mutation.module_path}:{mutation.start_pos[0]}"
    return f"{where} {mutation.operator_name.removeprefix('core/')}"


def report(database: WorkDB) -> None:
    """Print the changed lines of the survivors and the share that was killed."""
    done = list(database.completed_work_items)
    survivors = [(item, result) for item, result in done if not result.is_killed]
    for _, result in sorted(survivors, key=lambda pair: words(pair[0])):
        print(result.diff, end="\n\n")
    killed = len(done) - len(survivors)
    print(f"{killed} of {len(done)} mutants killed ({100 * killed / max(len(done), 1):.0f} %)")


if __name__ == "__main__":
    main()
