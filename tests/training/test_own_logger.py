"""A logger of one's own gets what TensorBoard gets; a log file holds lines and nothing else.

The stage is that of `job.py`: the real cohort, loop and checkpoints with a loss that compiles fast.
"""

import re
import sys
from pathlib import Path

import job
import killing
import pytest

import jaxreg
from jaxreg.cli import main
from jaxreg.configuration.training import (
    AutoencoderConfig,
    CohortConfig,
    OptimizerConfig,
    SessionConfig,
)
from jaxreg.errors import InputError
from jaxreg.training import train

MODULE = """
import pathlib

def told(step, values):
    for name, value in values.items():
        with pathlib.Path("told.txt").open("a") as file:
            file.write(f"{step} {name} {value!r}\\n")

def fails(step, values):
    with pathlib.Path("failed.txt").open("a") as file:
        file.write("once\\n")
    raise ConnectionError("no server")

number = 3
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return killing.tiny_cohort(tmp_path_factory.mktemp("logger") / "cohort")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working folder with a module of the user's, that Python does not look into by itself."""
    monkeypatch.setattr(train, "autoencoder_task", job.task)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_logger", raising=False)
    Path("my_logger.py").write_text(MODULE)
    return tmp_path


def run(cohort, *flags):
    fixed = ["--checkpoint-every=2", "--validate-every=4", "--log-every=2", "--workdir=run"]
    return main(["train", "--stage=ae", f"--data={cohort}", "--steps=6", *fixed, *flags])


def test_the_logger_gets_what_tensorboard_gets(cohort, workplace, capsys):
    assert run(cohort, "--logger=my_logger:told") == 0
    lines = [line.split() for line in Path("told.txt").read_text().splitlines()]
    told = {(name, int(step)): float(value) for step, name, value in lines}
    shown = killing.curve(workplace / "run")
    assert told == pytest.approx(shown) and len(told) == len(lines)
    assert {step for name, step in told if name == "train/loss"} == {2, 4, 6}
    assert {step for name, step in told if name == "val/answer"} == {4, 6}
    said = capsys.readouterr()
    log = said.out + said.err
    assert "\r" not in log and "\x1b" not in log, "a file shows lines"
    assert re.search(r"^train: 6 of 6 steps", log, re.M)
    assert re.search(r"^step 4: answer ", log, re.M)


def test_a_logger_that_fails_is_named_once_and_training_goes_on(cohort, workplace, capsys):
    assert run(cohort, "--logger=my_logger:fails") == 0
    said = capsys.readouterr().err
    assert said.count("ConnectionError: no server") == 1 and "at step 2" in said
    assert Path("failed.txt").read_text() == "once\n"
    assert killing.steps_saved(workplace / "run")[-1] == 6


def test_the_logger_is_no_part_of_a_runs_identity(cohort, workplace, capsys):
    assert run(cohort) == 0
    assert run(cohort, "--logger=my_logger:told", "--steps=8") == 0
    assert "resumed at step 6" in capsys.readouterr().out
    assert {line.split()[0] for line in Path("told.txt").read_text().splitlines()} == {"8"}


def test_a_function_is_given_from_python(cohort, workplace):
    told = []
    config = AutoencoderConfig(
        CohortConfig(data=cohort),
        OptimizerConfig(steps=2),
        SessionConfig(workdir=Path("run"), validate_every=0, log_every=1),
    )
    jaxreg.train(config, log=lambda step, values: told.append((step, values["train/loss"])))
    assert [step for step, _ in told] == [1, 2]
    assert dict(told) == pytest.approx(
        {s: v for (name, s), v in killing.curve(Path("run")).items() if name == "train/loss"}
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_logger", "expected MODULE:FUNCTION"),
        ("my_logger:", "expected MODULE:FUNCTION"),
        ("my logger:told", "expected MODULE:FUNCTION"),
        ("no_such_module:told", "no_such_module cannot be imported"),
        ("my_logger:absent", "my_logger has no function absent"),
        ("my_logger:number", "my_logger has no function number"),
    ],
)
def test_a_logger_that_is_not_there_is_refused_before_the_work(name, words, workplace, capsys):
    assert run(workplace / "no_cohort", f"--logger={name}") == 2
    assert words in capsys.readouterr().err and not (workplace / "run").exists()


def test_a_module_that_breaks_is_named(workplace):
    Path("broken_logger.py").write_text("import a_package_that_is_not_there")
    config = AutoencoderConfig(session=SessionConfig(logger="broken_logger:f"))
    with pytest.raises(InputError, match="a_package_that_is_not_there"):
        jaxreg.train(config)
