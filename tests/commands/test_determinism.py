"""The same command twice, in two processes: the same bits, in both stages and in `register`."""

import subprocess
import sys

import killing
import pytest
from registration_data import same_but_for_timings, write_subject

pytestmark = pytest.mark.slow

REGISTRATION = ["--loss=nce_mi", "--nce-locations=32", "--mi-samples=256", "--squarings=3"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return killing.tiny_cohort(tmp_path_factory.mktemp("determinism") / "cohort")


def run(cohort, workdir, *flags):
    argv = killing.command(cohort, workdir, 4, *flags)
    environment = killing.environment()
    subprocess.run(argv, check=True, env=environment, cwd=killing.ROOT, capture_output=True)
    return killing.outcome(workdir)


@pytest.fixture(scope="module")
def encoders(cohort, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("determinism") / "ae"
    return workdir, run(cohort, workdir)


def test_stage_1_twice_gives_the_same_bits(cohort, encoders, tmp_path):
    assert run(cohort, tmp_path / "again") == encoders[1]


def test_stage_2_twice_gives_the_same_bits(cohort, encoders, tmp_path):
    flags = ["--stage=reg", *REGISTRATION, f"--encoders={encoders[0]}"]
    first, second = (run(cohort, tmp_path / name, *flags) for name in ("one", "two"))
    assert first == second
    assert first[1] != encoders[1][1]  # another stage's parameters, so the hashes do see them


def test_register_twice_gives_the_same_files(tmp_path):
    fixed = write_subject(tmp_path, 1, "T1w", axes="las", spacing_mm=(6.0, 8.0, 9.0))
    moving = write_subject(tmp_path, 2, "T2w", axes="oblique")
    labels = [f"--fixed-labels={fixed['labels']}", f"--moving-labels={moving['labels']}"]
    pair = [str(fixed["image"]), str(moving["image"]), *labels]
    flags = ["--optimize-only", "--steps=3", "--spacing=6", "--lam=auto"]
    for name in ("one", "two"):
        argv = ["register", *pair, *flags, f"--out={name}"]
        subprocess.run(
            [sys.executable, "-c", "from jaxreg.cli import main; raise SystemExit(main())", *argv],
            check=True,
            env=killing.environment(),
            cwd=tmp_path,
            capture_output=True,
        )
    assert same_but_for_timings(tmp_path / "one", tmp_path / "two") == 9
