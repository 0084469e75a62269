"""What a training says and refuses before it reads a volume: gaps, remarks, places, platforms."""

import gzip
import shutil

import pytest

from jaxreg.cli import main
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.errors import InputError
from jaxreg.io.atomic import claimed
from jaxreg.training import train


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cohort"
    subjects = {"train": 2, "val": 2, "test": 2}
    return write_phantom_cohort(folder, shape=(24, 28, 24), spacing_mm=8.0, subjects=subjects)


@pytest.fixture
def cohort(whole, tmp_path, monkeypatch):
    """A cohort of one's own; no task is made of it, and nothing trained."""

    def stop(*_, **__):
        raise InputError("the task is made now")

    for name in ("autoencoder_task", "registration_task", "segmentation_task"):
        monkeypatch.setattr(train, name, stop)
    return shutil.copytree(whole, tmp_path / "cohort")


def said(capfd, cohort, *flags, stage="reg"):
    """The lines on standard error before the task is made."""
    workdir = cohort.parent / "run"
    argv = ["train", f"--stage={stage}", f"--data={cohort}", f"--workdir={workdir}", *flags]
    assert main([*argv, *(["--loss=mi"] if stage == "reg" else [])]) == 2
    *lines, last = capfd.readouterr().err.splitlines()
    assert last == "jaxreg: the task is made now"
    return lines


def test_a_whole_cohort_is_trained_on_without_a_word(cohort, capfd):
    for stage in ("ae", "reg", "seg"):
        assert said(capfd, cohort, stage=stage) == []


def remove(cohort, kind, *subjects):
    for subject in subjects:
        (cohort / subject / f"{subject}_{kind}.nii.gz").unlink()


def test_splits_that_cannot_be_scored_are_said_before_the_work(cohort, capfd):
    remove(cohort, "dseg", "sub-03", "sub-04", "sub-05")
    val, test = said(capfd, cohort)
    assert val.startswith("warning: split val cannot be scored (none of 2 subjects has labels): ")
    assert "validation Dice" in val and "eval --compare" in val
    assert test.startswith("warning: split test cannot be scored (only sub-06 has ")
    assert "`eval`" in test
    (line,) = said(capfd, cohort, stage="seg")
    assert "split val has no labelled subject" in line
    assert said(capfd, cohort, "--validate-every=0", stage="seg") == []
    assert said(capfd, cohort, stage="ae") == []  # it needs no labels


def test_a_contrast_that_is_missing_is_said(cohort, capfd):
    remove(cohort, "T2w", "sub-03", "sub-04")
    (line,) = said(capfd, cohort)
    assert "split val cannot be scored (no subject with labels has a T2w)" in line
    (line,) = said(capfd, cohort, stage="ae")
    assert "split val has no T2w" in line
    assert said(capfd, cohort, "--domains=T1w,T1w") == []


@pytest.fixture
def trained(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "cohort"), tmp_path / "run"


def test_unusual_files_are_remarked_on_before_the_first_step(trained, capfd):
    cohort, workdir = trained
    for subject in ("sub-01", "sub-02", "sub-03", "sub-04"):
        path = cohort / subject / f"{subject}_T1w.nii.gz"
        path.write_bytes(gzip.decompress(path.read_bytes()))
    argv = ["train", "--stage=ae", f"--data={cohort}", f"--workdir={workdir}", "--steps=1"]
    assert main([*argv, "--domains=T1w,T1w", "--validate-every=0"]) == 0
    out = capfd.readouterr().out.splitlines()
    (line,) = [line for line in out if "not compressed" in line]
    assert line.endswith("(and so in 3 more files)")
    assert out.index(line) < out.index(f"settings of --stage=ae, in {workdir}:")


def test_a_workdir_that_another_training_writes_is_refused_and_left_alone(trained, capfd):
    cohort, workdir = trained
    argv = ["train", "--stage=ae", f"--data={cohort}", f"--workdir={workdir}", "--steps=1"]
    workdir.mkdir()
    with claimed(workdir):
        assert main(argv) == 75
    assert f"{workdir}: another run is writing there" in capfd.readouterr().err
    assert not any(workdir.iterdir())


@pytest.mark.parametrize("place", ["file/run", f"{'x' * 256}/run"])
def test_a_workdir_that_cannot_be_is_refused_before_the_cohort_is_read(cohort, capfd, place):
    (cohort.parent / "file").touch()
    argv = ["train", "--stage=ae", f"--data={cohort}", f"--workdir={cohort.parent / place}"]
    assert main(argv) == 2
    err = capfd.readouterr().err
    assert "cannot be written" in err or "is a file" in err
    assert "task is made" not in err and err.count("\n") == 1
