"""What a user can get wrong on the command line: exit code 2, one line, and nothing written."""

import shutil

import numpy as np
import pytest

from jaxreg import cli
from jaxreg.data.synthetic.phantom import write_phantom_cohort

REG = ("train", "--stage=reg", "--loss=mi", "--data=cohort", "--workdir=run")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "cohort"
    subjects = {"train": 2, "val": 2, "test": 2}
    return write_phantom_cohort(folder, shape=(24, 28, 24), spacing_mm=8.0, subjects=subjects)


@pytest.fixture
def place(cohort, tmp_path, monkeypatch):
    """A working directory with a cohort in `cohort/`."""
    shutil.copytree(cohort, tmp_path / "cohort")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refuses(place, capfd, argv, *named):
    """`argv` ends with code 2, one line on stderr that holds `named`, and leaves no trace."""
    before = contents(place)
    assert cli.main(list(argv)) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert err.startswith("jaxreg: ") and "Traceback" not in err
    assert all(name in err for name in named), err
    assert contents(place) == before


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--data=absent"], ["absent"]),
        (["--data=cohort/participants.tsv"], ["participants.tsv"]),
        (["--loss=ssd"], ["--loss", "ssd", "nce_mi"]),
        (["--loss="], ["--loss"]),
        (["--regularizer=tv"], ["--regularizer", "tv", "diffusion"]),
        (["--domains=T1w"], ["--domains", "T1w"]),
        (["--domains=T1w,T2w,FLAIR"], ["--domains"]),
        (["--domains=T1w,"], ["--domains"]),
        (["--domains=T1w,../T2w"], ["--domains"]),
        (["--domains=T1w,FLAIR"], ["FLAIR", "train"]),
        (["--encoders=cohort"], ["--encoders", "nce_mi"]),
        (["--loss=nce_mi", "--encoders=absent"], ["absent"]),
        (["--loss=nce", "--encoders=cohort"], ["cohort"]),
        (["--loss=nce_mi"], ["runs/ae", "jaxreg train --stage=ae", "--encoders"]),
        (["--init-from=absent"], ["absent"]),
        (["--lam=0.5"], ["--lam", "--conditioning=none"]),
        (["--conditioning=none"], ["--lam"]),
        (["--conditioning=none", "--lam=1.5"], ["--lam", "1.5"]),
        (["--conditioning=none", "--lam=nan"], ["--lam"]),
        (["--conditioning=film"], ["--conditioning", "film"]),
        (["--stem=pool"], ["--stem", "pool"]),
        (["--steps=0"], ["--steps"]),
        (["--steps=-5"], ["--steps"]),
        (["--batch-size=0"], ["--batch-size"]),
        (["--learning-rate=0"], ["--learning-rate"]),
        (["--learning-rate=nan"], ["--learning-rate"]),
        (["--seed=-1"], ["--seed"]),
        (["--spacing=0"], ["--spacing"]),
        (["--spacing=nan"], ["--spacing"]),
        (["--checkpoint-every=0"], ["--checkpoint-every"]),
        (["--preset=mine"], ["--preset", "mine", "miccai"]),
        (["--workdir=cohort/labels.tsv"], ["labels.tsv", "folder"]),
    ],
)
def test_a_bad_flag_of_registration_is_refused_in_one_line(place, capfd, flags, named, monkeypatch):
    from jaxreg.training import registration

    monkeypatch.setattr(registration, "init_params", lambda *_: {})  # seconds, and not used here
    refuses(place, capfd, [*REG, *flags], *named)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--data=absent"], ["absent"]),
        (["--data=cohort", "--domains=FLAIR,T1w"], ["FLAIR"]),
        (["--data=cohort", "--stem=pool"], ["--stem"]),
        (["--data=cohort", "--workdir=cohort/labels.tsv"], ["labels.tsv"]),
    ],
)
def test_a_bad_flag_of_the_autoencoders_is_refused_in_one_line(place, capfd, flags, named):
    refuses(place, capfd, ["train", "--stage=ae", *flags], *named)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["train", "--data=cohort"], ["--stage", "ae", "reg"]),
        (["train", "--stage=segment", "--data=cohort"], ["--stage", "segment"]),
        (["train", "--stage=", "--data=cohort"], ["--stage"]),
        (["trian"], ["trian", "train"]),
        (["eval", "--workdir=absent"], ["absent"]),
        (["eval", "--workdir=cohort"], ["cohort"]),
        (["eval", "--workdir=cohort/labels.tsv"], ["labels.tsv"]),
        (["eval"], ["runs"]),
        (["eval", "--workdir=cohort", "--split=all"], ["--split", "all"]),
        (["eval", "--workdir=cohort", "--pairs=some"], ["--pairs", "some"]),
        (["eval", "--workdir=cohort", "--lambdas=a:b"], ["--lambdas"]),
        (["eval", "--workdir=cohort", "--lambdas=0:2:0.5"], ["--lambdas"]),
    ],
)
def test_a_bad_stage_command_or_evaluation_is_refused_in_one_line(place, capfd, argv, named):
    refuses(place, capfd, argv, *named)


def test_a_cohort_without_a_train_split_is_refused(place, capfd):
    table = place / "cohort" / "participants.tsv"
    table.write_text(table.read_text().replace("train", "test"))
    refuses(place, capfd, REG, "participants.tsv", "'train'")


def test_a_cohort_of_one_training_subject_is_refused(place, capfd, monkeypatch):
    from jaxreg.training import registration

    monkeypatch.setattr(registration, "init_params", lambda *_: {})  # seconds, and not used here
    table = place / "cohort" / "participants.tsv"
    table.write_text(table.read_text().replace("train", "test", 1))
    refuses(place, capfd, REG, "cohort", "two subjects")


@pytest.mark.parametrize("stage", ["ae", "reg"])
@pytest.mark.parametrize("damage", ["cut", "cut at the end", "empty", "text", "header"])
def test_a_broken_volume_is_refused_by_name(place, capfd, stage, damage):
    path = place / "cohort" / "sub-02" / "sub-02_T2w.nii.gz"
    data = path.read_bytes()
    damaged = {
        "cut": data[: len(data) // 2],
        "cut at the end": data[:-4],
        "empty": b"",
        "text": b"not a volume\n" * 50,
        "header": np.random.default_rng(0).bytes(352),
    }
    path.write_bytes(damaged[damage])
    argv = ["train", f"--stage={stage}", "--data=cohort", "--workdir=run"]
    refuses(place, capfd, [*argv, *(["--loss=mi"] if stage == "reg" else [])], path.name)


@pytest.mark.parametrize("table", ["participants", "labels"])
def test_a_broken_table_is_refused_by_name(place, capfd, table):
    (place / "cohort" / f"{table}.tsv").write_text("no such\tcolumns\na\tb\n")
    refuses(place, capfd, REG, f"{table}.tsv")


def exit_code(argv):
    """What the shell sees, whether `main` returns it or the program ends with it."""
    try:
        return cli.main(list(argv))
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize(
    "argv",
    [
        [*REG, "--no-such-flag=1"],
        [*REG, "--steps=many"],
        [*REG, "--lam=half"],
        [*REG, "extra"],
        ["train", "--stage=ae", "--data=cohort", "--loss=mi"],
        ["eval", "--no-such-flag"],
        ["train", "--data=cohort", "--stage"],
    ],
)
def test_an_unknown_or_unreadable_flag_exits_with_2_and_writes_nothing(place, capfd, argv):
    before = contents(place)
    assert exit_code(argv) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert contents(place) == before
