"""The same command twice, in two processes: the same numbers to the last bit, in both stages."""

import subprocess

import killing
import pytest

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
