"""Standard output, locale, home and JAX's platform, absent or broken: the work is not lost."""

import os
import subprocess
import sys
from pathlib import Path

import killing
import pytest
from registration_data import write_subject

from jaxreg import runtime
from jaxreg.progress import write_line


def jaxreg(*argv, **settings):
    changed = {name: settings.pop(name) for name in list(settings) if name.isupper()}
    environment = {**killing.environment(), **changed}
    environment = {name: value for name, value in environment.items() if value is not None}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    command = [sys.executable, "-m", "jaxreg.cli", *argv]
    command[1:3] = ["-c", "import sys; from jaxreg.cli import main; sys.exit(main())"]
    return subprocess.run(
        command, env=environment, cwd=killing.ROOT, text=True, encoding="utf-8",
        errors="replace", check=False, **streams,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return [str(write_subject(folder, n, d)["image"]) for n, d in ((1, "T1w"), (2, "T2w"))]


def test_a_registration_survives_a_full_disk_behind_its_lines_and_a_foreign_locale(pair, tmp_path):
    out = tmp_path / "out"
    with open("/dev/full", "w") as full:
        done = jaxreg(
            "register", *pair, f"--out={out}", "--optimize-only", "--steps=2", "--spacing=8",
            stdout=full, stderr=full, PYTHONIOENCODING="latin-1", PYTHONUTF8="0",
        )  # fmt: skip
    assert done.returncode == 0
    assert {"warp.nii.gz", "report.html", "provenance.json"} <= {p.name for p in out.iterdir()}


def test_a_registration_survives_a_pipe_that_nobody_reads(pair, tmp_path):
    out = tmp_path / "out"
    read, write = os.pipe()
    os.close(read)
    jaxreg("register", *pair, f"--out={out}", "--transform=rigid", stdout=write)
    os.close(write)
    assert (out / "report.html").is_file() and (out / "affine.mat").is_file()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_help_speaks_in_any_encoding(encoding):
    done = jaxreg("sweep", "--help", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr


def test_a_platform_that_is_not_there_is_named_in_one_line():
    done = jaxreg("register", "a.nii", "b.nii", "--out=o", JAX_PLATFORMS="cuda")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("jaxreg: ")]
    assert "JAX_PLATFORMS=cuda" in line
    assert "Traceback" not in done.stderr
    assert jaxreg("apply", "--help", JAX_PLATFORMS="cuda").returncode == 0


@pytest.mark.parametrize(
    "argv",
    [
        ("train", "--stage=ae", "--data=absent"),
        ("eval", "--workdir=absent"),
        ("eval", "--compare", "absent"),
        ("segment", "a.nii", "--out=o"),
    ],
)
def test_training_evaluation_and_segmentation_name_the_platform_too(argv):
    done = jaxreg(*argv, JAX_PLATFORMS="cuda")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "JAX_PLATFORMS=cuda" in done.stderr.splitlines()[-1]


def test_a_user_without_a_home_gets_no_cache_and_no_complaint(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    runtime.prepare()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_line_is_lost_where_its_stream_takes_none(monkeypatch):
    with open("/dev/full", "w") as full:
        write_line("λ", stream=full)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # what is buffered
    write_line("λ", stream=full)  # closed
    monkeypatch.setattr(sys, "stdout", None)
    write_line("λ")
