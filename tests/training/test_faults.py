"""Training cut off by force: what is on disk afterwards, and how the same command goes on."""

import os
import re
import signal
import subprocess
import sys

import killing
import numpy as np
import pytest
from killing import outcome

from jaxreg.errors import InputError
from jaxreg.models.checkpoint import Checkpoints, Meta

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return killing.tiny_cohort(tmp_path_factory.mktemp("faults") / "cohort")


@pytest.fixture(scope="module")
def whole(cohort, tmp_path_factory):
    """A run of 8 steps that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("faults") / "whole"
    done = finish(killing.command(cohort, workdir, 8))
    assert done.returncode == 0, done.stderr
    return workdir


def finish(argv, *, timeout=300, **more):
    return subprocess.run(
        argv,
        env=killing.environment(**more),
        cwd=killing.ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_a_run_killed_at_random_moments_ends_like_one_that_was_not():
    script = [
        sys.executable,
        str(killing.ROOT / "tests" / "helpers" / "killing.py"),
        "--kills=6",
        "--seed=1",
    ]
    done = finish(script, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = re.search(r"(\d+) kills", done.stdout)  # a fast run ends before the last of six
    assert kills and int(kills[1]) >= 2 and "checkpoints: 68, 70, 72" in done.stdout


@pytest.mark.parametrize("damage", ["truncated", "flipped byte", "missing file"])
def test_a_damaged_checkpoint_is_named_and_the_next_older_one_used(cohort, whole, tmp_path, damage):
    workdir = tmp_path / "run"
    assert finish(["cp", "-r", str(whole), str(workdir)]).returncode == 0
    newest = workdir / "checkpoints" / "8"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = largest.read_bytes()
    if damage == "missing file":
        largest.unlink()
    else:
        flipped = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
        largest.write_bytes(data[: len(data) // 2] if damage == "truncated" else flipped)
    done = finish(killing.command(cohort, workdir, 8))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("jaxreg: ")]
    assert len(lines) == 2
    assert f"{newest}: damaged checkpoint" in lines[0] and "step 6 is used" in lines[0]
    assert largest.relative_to(newest).as_posix() in lines[0]
    assert lines[1].endswith("8: kept as 8.damaged-1.")
    assert "resumed at step 6" in done.stdout
    assert outcome(workdir) == outcome(whole)
    assert (newest.with_name("8.damaged-1") / "SHA256SUMS").is_file()


def ended_by_sigterm(process):
    """The exit code after SIGTERM: that of the signal, or 0 where the last step was done before."""
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=300)
    assert code in (0, 128 + signal.SIGTERM)
    return code


def test_sigterm_saves_and_the_run_goes_on(cohort, whole, tmp_path):
    workdir, output = tmp_path / "run", tmp_path / "output.txt"
    process = killing.start(killing.command(cohort, workdir, 8), output)
    assert killing.wait_until(lambda: killing.steps_saved(workdir), process)
    if ended_by_sigterm(process):
        assert f"SIGTERM: saved step {killing.steps_saved(workdir)[-1]} in" in output.read_text()
    assert finish(killing.command(cohort, workdir, 8)).returncode == 0
    assert outcome(workdir) == outcome(whole)


def test_sigterm_during_a_validation_does_not_wait_for_it(cohort, tmp_path):
    argv = killing.command(cohort, tmp_path / "run", 8)
    slow = (
        "import runpy, sys, time\n"
        "import jaxreg.evaluation.figures.basic as figures\n"
        "drawn = figures.reconstructions\n"
        "def slowly(*a, **k):\n"
        "    print('validating', flush=True)\n"
        "    for _ in range(6000): time.sleep(0.1)\n"
        "figures.reconstructions = slowly\n"
        f"sys.argv = {argv[1:]!r}\n"
        f"runpy.run_path({argv[1]!r}, run_name='__main__')\n"
    )
    output = tmp_path / "output.txt"
    process = killing.start([argv[0], "-c", slow], output)
    assert killing.wait_until(lambda: b"validating" in output.read_bytes(), process)
    assert ended_by_sigterm(process) != 0  # long before the end of the validation
    assert killing.steps_saved(tmp_path / "run") == [2, 4]
    assert not (tmp_path / "run" / "validation.csv").exists()
    assert finish(argv).returncode == 0  # makes up for the validation of step 4
    table = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in table] == ["step", "4", "8"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # a thread may still have a file open


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_what_was_there(cohort, whole, small_disk):
    workdir = small_disk / "run"
    first = finish(killing.command(cohort, workdir, 8))
    lines = [line for line in first.stderr.splitlines() if "Traceback" in line]
    assert first.returncode == 75 and not lines
    last = first.stderr.strip().splitlines()[-1]
    assert last.startswith("jaxreg: ") and "not written" in last and "No space left" in last
    kept = killing.steps_saved(workdir)
    assert kept and f"that of step {kept[-1]} is kept" in last
    assert subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)]).returncode == 0
    assert finish(killing.command(cohort, workdir, 8)).returncode == 0
    assert outcome(workdir)[:3] == outcome(whole)[:3]


@pytest.mark.parametrize("room", [40_000, 400_000, 1_000_000, 2_000_000])
def test_a_checkpoint_that_does_not_fit_is_refused_without_a_traceback(room, small_disk, capfd):
    """TensorStore's threads would print one for each array that they had not written yet."""
    disk = os.statvfs(small_disk)
    (small_disk / "fill").write_bytes(bytes(disk.f_bavail * disk.f_frsize - room))
    noise = np.random.default_rng(0).random((12, 50_000), np.float32)  # 2.4 MB; twice is saved
    params = {f"layer{number}": row for number, row in enumerate(noise)}
    checkpoints = Checkpoints(small_disk / "run")
    with pytest.raises(InputError, match=r"not written \(No space left.*there is none yet"):
        checkpoints.save(Meta("ae", {}, {}, {}, 2), params, params)
    assert capfd.readouterr().err == ""
    (small_disk / "fill").unlink()
    checkpoints.save(Meta("ae", {}, {}, {}, 2), params, params)
    assert checkpoints.steps() == [2]


def test_a_read_only_workdir_is_refused_before_any_step(cohort, whole, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = finish(killing.command(cohort, small_disk / "run", 8))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Read-only file system" in done.stderr
    assert os.listdir(small_disk) == []
