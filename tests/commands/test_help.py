"""What the commands say of themselves, without loading anything that a registration needs."""

import io
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import pytest

from jaxreg import __version__, cli
from jaxreg.commands import flags, register
from jaxreg.commands.convert import File
from jaxreg.configuration.preparation import Layout
from jaxreg.configuration.registration import (
    ON_REQUEST,
    UNGUIDED_STEPS,
    DirectSettings,
    RegisterConfig,
)
from jaxreg.configuration.training import DEFAULT_STEPS, EMBEDDED_STEPS
from jaxreg.errors import InputError
from jaxreg.models.release import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"jax", "SimpleITK", "scipy", "nibabel", "matplotlib", "numpy", "flax", "orbax"}


def help_of(command, monkeypatch, *, columns=100):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_without_a_command_the_help_describes_each(argv, capsys):
    assert cli.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, description in cli.COMMANDS.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.endswith(description) and len(line) <= 80


def test_the_help_names_all_that_is_trained_prepared_and_moved(monkeypatch):
    assert all(word in cli.COMMANDS["train"] for word in ("autoencoder", "registration", "segment"))
    assert "table" in cli.COMMANDS["prepare"]
    assert "FILE …" in help_of("apply", monkeypatch).splitlines()[0]


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxreg {__version__}\n"


def test_the_package_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "jaxreg", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"jaxreg {__version__}\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_takes_little_time_and_loads_nothing_that_only_work_needs(command):
    code = (
        "import resource, sys\nfrom jaxreg.cli import main\n"
        f"try:\n    main(['{command}', '--help'])\n"
        "except SystemExit as error:\n    assert not error.code\n"
        "own = resource.getrusage(resource.RUSAGE_SELF)\n"
        f"print({HEAVY} & set(sys.modules))\nprint(own.ru_utime + own.ru_stime)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's threads here, and a fork
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
        )
    loaded, seconds = done.stdout.splitlines()[-2:]
    assert loaded == "set()"
    # Half a second of the processor on a fast machine; nothing heavy is loaded on any machine.
    assert float(seconds) < 10


@pytest.mark.parametrize(
    "argv",
    [
        ["register", "absent.nii", "README.md", "--out=o"],
        ["register", "README.md", "README.md", "--fixed-mask=absent.nii", "--out=o"],
        ["sweep", "README.md", "absent.nii", "--out=o"],
        ["segment", "README.md", "absent.nii", "--out=o"],
    ],
)
def test_a_file_that_is_not_there_is_refused_before_jax_is_loaded(argv):
    code = (
        f"import sys\nfrom jaxreg.cli import main\nprint(main({argv}))\nprint('jax' in sys.modules)"
    )
    env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's threads here, and a fork
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
        )
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr == "jaxreg: absent.nii: no such file.\n"


@pytest.mark.parametrize(("script", "command"), [("train", "train"), ("eval", "eval")])
def test_the_scripts_are_the_commands(script, command, monkeypatch):
    done = subprocess.run(
        [sys.executable, f"{script}.py", "--help"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout.startswith(f"usage: jaxreg {command}")


@pytest.mark.parametrize(
    ("stage", "groups"),
    [
        ("ae", ["cohort", "optimizer", "session", "encoder"]),
        ("reg", ["cohort", "optimizer", "session", "augmentation", "network", "objective"]),
        ("seg", ["optimizer", "session", "network"]),
    ],
)
def test_the_flags_of_training_stand_in_groups(stage, groups, capsys):
    cli.main(["train", f"--stage={stage}", "--help"])
    shown = capsys.readouterr().out
    assert all(f" {group} options " in shown for group in groups)
    assert "usage: jaxreg train --stage=" + stage in shown


def test_the_help_of_training_names_the_steps_that_are_taken_by_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    cli.main(["train", "--stage=reg", "--help"])
    text = re.search(r"--steps INT(.*?)--batch-size", capsys.readouterr().out, re.DOTALL)
    assert text is not None
    usual, embedded = " ".join(re.sub("[│]", " ", text[1]).split()).split("embedded cohort")
    for said, steps in ((usual, DEFAULT_STEPS), (embedded, EMBEDDED_STEPS)):
        assert {stage: f"{n} ({stage})" in said for stage, n in steps.items()} == dict.fromkeys(
            steps, True
        )


def test_the_help_of_a_flag_that_switches_off_says_what_is_switched_off(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    cli.main(["train", "--stage=ae", "--help"])
    assert "--no-flip leaves it out" in " ".join(
        re.sub("[│]", " ", capsys.readouterr().out).split()
    )


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["register", "a", "b", "--nonsense"], "--nonsense"),
        (["register", "a", "b", "--steps=x"], "--steps"),
        (["register", "a", "b", "--lam=2"], "--lam"),
        (["register", "a", "b", "--lam=x"], "--lam"),
        (["register", "a", "b", "--transform=x"], "--transform"),
        (["register", "a", "b", "--steps=5"], "--steps: read only with --optimize-only"),
        (["sweep", "a", "b", "--lam=0.5"], "--lam"),
        (["sweep", "a", "--nonsense"], "--nonsense"),
        (["apply", "--nonsense"], "--nonsense"),
        (["convert", "w.nii", "--to=nifty"], "--to"),
        (["prepare", "--layout=dicom"], "--layout"),
        (["prepare", "scans", "--layout=bids", "--jobs=0"], "--jobs"),
        (["prepare", "--seed=x"], "--seed"),
        (["compare", "a", "--loss=ssd"], "--loss"),
        (["demo", "--nonsense"], "--nonsense"),
        (["eval", "--nonsense"], "--nonsense"),
        (["train", "--stage=seg", "--nonsense"], "--nonsense"),
    ],
)
def test_what_is_wrong_is_named_before_what_is_missing(argv, named, capsys):
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and named in err and "--out" not in err


def test_what_is_missing_is_named_where_nothing_is_wrong(capsys):
    assert cli.main(["register", "a", "b", "--lam=0.5"]) == 2
    assert "--out" in capsys.readouterr().err


def test_the_flags_of_register_stand_in_groups_a_line_each(monkeypatch):
    shown = help_of("register", monkeypatch)
    groups = re.findall(r"╭─ (.*?) ─", shown)
    assert groups == [
        "positional arguments",
        "options",
        "input options",
        "registration options",
        "output options",
        "advanced options",
    ]
    rows = [line.strip("│ ") for line in shown.splitlines() if line.startswith("│")]
    named = [row.split()[0] for row in rows if row.startswith("--")]
    for name in RegisterConfig.__dataclass_fields__:
        assert named.count("--" + name.replace("_", "-")) == 1
    for row in (row for row in rows if row.startswith("--")):
        assert row.endswith((".", ")")), row  # the text of a flag ends in its own line
    assert "None" not in shown and "(deformable, affine, rigid; default: deformable)" in shown


def test_a_default_of_zero_is_shown_like_any_other(monkeypatch):
    shown = help_of("prepare", monkeypatch)
    assert re.search(r"--seed INT .*\(default: 0\)", shown)
    assert "False" not in shown and "None" not in shown


@pytest.mark.parametrize(
    ("command", "flag", "choices"),
    [
        ("convert", "to", get_args(File.__annotations__["to"])),
        ("prepare", "layout", get_args(Layout)),
    ],
)
def test_a_required_flag_names_its_choices(command, flag, choices, monkeypatch):
    """Beside them tyro says that it is required, and leaves out what is said of choices."""
    (line,) = [row for row in help_of(command, monkeypatch).splitlines() if f"│ --{flag} " in row]
    assert set(choices) <= set(re.findall(r"[a-z]+", line))


def test_the_defaults_that_the_help_of_register_names_are_those_in_force(monkeypatch):
    shown = help_of("register", monkeypatch)
    rows = {row.split()[1]: row for row in shown.splitlines() if row.startswith("│ --")}
    bundled = json.loads((SHIPPED / "model.json").read_text(encoding="utf-8"))["register"]
    assert f"{bundled['refine']} (bundled), {UNGUIDED_STEPS} if unsegmented" in rows["--refine"]
    assert f"(--optimize-only: {DirectSettings().lam})" in rows["--lam"]
    assert "by default auto" in rows["--init"]
    assert f"by default all but {','.join(ON_REQUEST)}" in rows["--outputs"]


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group."""

    kind: Literal["one", "two"] | None = None
    """Which."""
    on: bool = True
    """Whether."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Two levels."""

    inner: Inner = field(default_factory=Inner)
    count: int
    """How many."""


def test_flags_give_the_dataclass_itself_and_leave_out_what_the_default_has():
    assert flags.parse(Outer, ["--count=2"], prog="x") == Outer(count=2)
    default = Outer(inner=Inner(kind="two"), count=5)
    found = flags.parse(Outer, ["--no-on"], prog="x", default=default)
    assert found == Outer(inner=Inner(kind="two", on=False), count=5)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--count=many"], r"--count.*'many'.* See `x --help`\.$"),
        (["--count"], r"--count"),
        ([], r"--count"),
        (["--count=1", "--size=2"], r"--size"),
        (["--count=1", "more"], r"more"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(argv, said):
    with pytest.raises(InputError, match=said) as caught:
        flags.parse(Outer, argv, prog="x")
    assert not set("\n│|") & set(str(caught.value)) and "---" not in str(caught.value)


def test_the_error_is_the_same_where_the_terminal_draws_boxes(monkeypatch):
    said = []
    for encoding in ("utf-8", "ascii"):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        with pytest.raises(InputError) as caught:
            flags.parse(Outer, ["--count=1", "--size=2"], prog="x")
        said.append(str(caught.value))
    assert said == ["unknown flag --size. See `x --help`."] * 2


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["prepare", "scans", "--layout=dicom", "--out=c"], ["--layout", "dicom", "bids"]),
        (["register", "a", "b", "--out=c", "--transform=x"], ["--transform", "rigid"]),
        (["register", "a", "b", "--out=c", "--loss=nce"], ["--loss", "nce", "mind"]),
        (["convert", "w.nii", "--to=nifty", "--out=c.nii"], ["--to", "fsl"]),
    ],
)
def test_a_choice_that_there_is_not_is_refused_in_one_line(argv, named, capsys):
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(name in err for name in named)


def test_groups_of_flags_become_the_settings():
    argv = ["a", "b", "--out=c", "--lam=auto", "--moving-mask=m.nii", "--passes=3"]
    config = flags.parse(register.Config, argv, prog="x")
    settings = register.settings_of(
        config.input, config.registration, config.output, config.advanced
    )
    assert settings == RegisterConfig(lam="auto", moving_mask=Path("m.nii"), passes=3)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("apply w.nii --imag x.nii --out o", "unknown flag --imag; did you mean --image?"),
        ("apply w.nii --imag=x.nii --out o", "unknown flag --imag; did you mean --image?"),
        ("convert w --too fsl", "unknown flag --too; did you mean --to?"),
        ("compare a b --wiht ants", "unknown flag --wiht; did you mean --with?"),
        ("apply w.nii --zzzz 3", "unknown flag --zzzz."),
        ("register a b --output o", "unknown flag --output; did you mean --out or --outputs?"),
        (
            "register a b --mask o",
            "unknown flag --mask; did you mean --fixed-mask or --moving-mask?",
        ),
        (
            "register a b --out x --lam 0,3",
            "--lam: expected a number or auto, got '0,3'; a decimal point is needed: 0.3.",
        ),
        (
            "sweep a b --out x --spacing=2,5",
            "--spacing: expected a number, got '2,5'; a decimal point is needed: 2.5.",
        ),
        ("register a b --out x --steps 1,5", "--steps: expected a whole number, got '1,5'."),
        ("register a b --out x --at-once two", "--at-once: expected a whole number, got 'two'."),
        ("prepare a --out b --spacing wide", "--spacing: expected a number, got 'wide'."),
        ("register a b c --out x", "unexpected argument c."),
        ("apply w.nii", "--out is required, and not given."),
        ("convert w.nii", "--to and --out are required, and not given."),
        ("register a b --out", "--out needs a value."),
    ],
)
def test_what_is_wrong_with_a_flag_is_one_clear_sentence(argv, said, capsys):
    words = argv.split()
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"jaxreg: {said} See `jaxreg {words[0]} --help`.\n"


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "train"])
def test_every_flag_that_takes_a_number_says_so_in_plain_words(command, capsys, monkeypatch):
    shown = help_of(command, monkeypatch)
    for flag in dict.fromkeys(re.findall(r"(--[a-z-]+) (?:INT|FLOAT)\b", shown)):
        assert cli.main([command, flag, "x,y"]) == 2
        err = capsys.readouterr().err
        assert re.match(rf"jaxreg: {flag}: expected a (whole )?number\b.*, got 'x,y'\.", err), err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["register", "a", "b", "--out=c", "--domains", "T1w T2w"], "a comma alone separates"),
        (["train", "--stage=reg", "--domains", "T1w;T2w"], "a comma alone separates"),
        (["train", "--stage=reg", "--learning-rate", "0,01"], "a decimal point is needed: 0.01."),
        (
            ["register", "a", "b", "--out=c", "--outputs", "warp report"],
            "a comma separates several: warp,report.",
        ),
        (
            ["register", "a", "b", "--out=c", "--outputs", "warp;moved"],
            "a comma separates several: warp,moved.",
        ),
    ],
)
def test_what_is_written_with_another_separator_is_told_of_the_right_one(argv, said, capsys):
    assert cli.main(argv) == 2
    assert said in capsys.readouterr().err


def test_quiet_and_verbose_exclude_each_other(capsys):
    assert cli.main(["register", "a", "b", "--out=c", "--quiet", "--verbose"]) == 2
    assert "--quiet" in capsys.readouterr().err


def test_json_of_apply_is_one_object_on_standard_output(tmp_path, capsys):
    matrix = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    matrix += "Parameters: 1 0 0 0 1 0 0 0 1 5 0 0\nFixedParameters: 0 0 0\n"
    (tmp_path / "shift.tfm").write_text(matrix)
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    out = tmp_path / "moved.csv"
    argv = ["apply", str(tmp_path / "shift.tfm"), f"--points={tmp_path / 'points.csv'}"]
    assert cli.main([*argv, f"--out={out}", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"out": str(out), "remarks": []}
    # LPS +5 in x takes fixed to moving, so a point of the moving space goes the other way: RAS +5
    assert out.read_text().splitlines()[1].startswith("6.000000,2.000000")


PRINTING = ("register", "sweep", "normalize", "apply", "convert", "group", "segment", "bids")


@pytest.mark.parametrize("command", [*PRINTING, "compare", "prepare"])
def test_verbose_is_offered_where_there_is_more_to_say(command, monkeypatch):
    offered = "--verbose" in help_of(command, monkeypatch)
    assert offered is (command in ("register", "sweep", "normalize"))


@pytest.mark.parametrize("command", ["register", "segment", "bids"])
def test_a_folder_of_several_results_is_not_said_to_appear_as_a_whole(command, monkeypatch):
    text = " ".join(help_of(command, monkeypatch).replace("│", " ").split())
    assert "each result appears when it is complete" in text
