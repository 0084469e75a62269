"""jaxreg without what only Linux and macOS have: Windows, simulated in a process of its own.

What is missing there is taken away before jaxreg is imported: `fcntl`, `resource`, `select.poll`,
signals, `fork`. Windows' own lock and memory counter are stood in for; their lock refuses a file
that another handle has locked, and a locked file that is open cannot be removed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from registration_data import write_subject

from jaxreg.geometry.grid import Volume
from jaxreg.io.images import read, write

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = """
import asyncio, ctypes, fcntl, multiprocessing, os, pathlib, select, signal, subprocess, sys, types
import jax, nibabel, SimpleITK, tempfile

open_files, flock = set(), fcntl.flock

def locking(handle, mode, size):
    try:
        flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise PermissionError(13, "Permission denied") from None
    open_files.add(os.readlink(f"/proc/self/fd/{handle}"))

def closing(handle, close=os.close):
    open_files.discard(os.readlink(f"/proc/self/fd/{handle}"))
    close(handle)

def unlinking(path, *more, unlink=os.unlink, **named):
    if str(path) in open_files:
        raise PermissionError(13, "The process cannot access the file")
    unlink(path, *more, **named)

def memory(process, counters, size):
    counters._obj.peak = 3_000_000_000
    return 1

kernel = types.SimpleNamespace(
    GetCurrentProcess=types.SimpleNamespace, K32GetProcessMemoryInfo=memory
)
class Process:
    restype = None
    def __call__(self):
        return 1
kernel.GetCurrentProcess = Process()
ctypes.windll = types.SimpleNamespace(kernel32=kernel)
os.close, os.unlink = closing, unlinking
windows = types.ModuleType("msvcrt")
windows.LK_NBLCK, windows.locking = 2, locking
sys.modules.update(msvcrt=windows, fcntl=None, resource=None, pwd=None, grp=None)
del select.poll, os.fork, os.geteuid, signal.SIGPIPE, signal.SIGKILL, signal.SIGHUP, signal.SIGALRM
"""


def on_windows(script, *arguments):
    """What a script prints after `WINDOWS`."""
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMAND = "from jaxreg.cli import main\nraise SystemExit(main(sys.argv[1:]))"


def test_the_commands_say_what_they_are():
    assert "register" in on_windows(COMMAND, "--help")


def test_a_transform_file_is_probed_and_an_image_moved(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (14, 11, 13)).astype(np.float32)
    write(tmp_path / "image.nii.gz", Volume(image, np.diag([2.0, 3.0, 4.0, 1.0])))
    shift = sitk.CompositeTransform([sitk.TranslationTransform(3, (-2.0, -6.0, 4.0))])
    shift.FlattenTransform()
    sitk.WriteTransform(shift, str(tmp_path / "shift.h5"))
    flags = "--image", tmp_path / "image.nii.gz", "--reference", tmp_path / "image.nii.gz"
    on_windows(COMMAND, "apply", tmp_path / "shift.h5", *flags, "--out", tmp_path / "moved.nii.gz")
    moved = read(tmp_path / "moved.nii.gz").array
    np.testing.assert_allclose(moved[:-1, :-2, :-1], image[1:, 2:, 1:], atol=1e-3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "image.nii.gz",
        "moved.nii.gz",
        "shift.h5",
    ]


def test_two_claims_do_not_meet_and_leave_nothing(tmp_path):
    script = """
from jaxreg.io.atomic import InUse, claimed
from jaxreg.runtime import peak_gigabytes
with claimed(sys.argv[1]):
    try:
        with claimed(sys.argv[1]):
            print("both")
    except InUse as error:
        print(error)
with claimed(sys.argv[1]):
    print("again", peak_gigabytes())
"""
    said = on_windows(script, tmp_path / "out").splitlines()
    assert said == [f"{tmp_path / 'out'}: another run is writing there.", "again 3.0"]
    assert not list(tmp_path.iterdir())


def test_a_closed_output_ends_without_a_word():
    read_end, write_end = os.pipe()
    os.close(read_end)
    argv = [sys.executable, "-c", WINDOWS + COMMAND, "--help"]
    done = subprocess.run(argv, stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_a_pair_is_registered(tmp_path):
    fixed, moving = write_subject(tmp_path, 1, "T1w"), write_subject(tmp_path, 2, "T2w")
    images = fixed["image"], moving["image"]
    flags = "--optimize-only", "--spacing=8", "--steps=2", "--extract=never"
    out = tmp_path / "out"
    on_windows(COMMAND, "register", *images, f"--out={out}", *flags)
    on_windows(COMMAND, "register", *images, f"--out={out}", *flags, "--overwrite")
    assert (out / "report.html").is_file() and not list(tmp_path.glob(".*"))
    assert json.loads((out / "timings.json").read_text())["peak_gigabytes"] == 3.0
