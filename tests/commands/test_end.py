"""How the process of a command ends: at once, but with nothing lost that was still to be done."""

import os
import subprocess
import sys

import pytest

_END = "from jaxreg import cli\ncli.main = lambda: {code}\n{before}\ncli.console()"


def _ended(before: str, code: int = 0, *command: str) -> subprocess.CompletedProcess[str]:
    """A process that does `before` and then ends as the command does."""
    argv = [sys.executable, "-c", _END.format(code=code, before=before), *command]
    buffered = {name: v for name, v in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(argv, capture_output=True, text=True, env=buffered)


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_that_of_the_command(code):
    assert _ended("", code).returncode == code


def test_objects_are_not_taken_apart():
    tells = "class Held:\n    def __del__(self): print('taken apart')\nheld = Held()"
    assert _ended(tells).stdout == ""


def test_what_is_buffered_or_registered_for_the_end_is_not_lost(tmp_path):
    before = (
        "import atexit, sys, tempfile\n"
        f"held = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})\n"
        "atexit.register(print, 'registered')\n"
        "sys.stdout.write('buffered ')"
    )
    assert _ended(before).stdout == "buffered registered\n"
    assert list(tmp_path.iterdir()) == []


def test_a_training_loses_nothing_of_a_file_that_a_logger_left_open(tmp_path):
    left_open = f"log = open({str(tmp_path / 'log.csv')!r}, 'w')\nlog.write('step')"
    assert _ended(left_open, 0, "train", "--stage=ae").returncode == 0
    assert (tmp_path / "log.csv").read_text() == "step"


def test_a_thread_at_work_is_waited_for_and_a_daemon_is_not():
    work = "import threading, time\ndef work(): time.sleep(0.5); print('done', flush=True)\n"
    assert _ended(f"{work}threading.Thread(target=work).start()", 3).stdout == "done\n"
    daemon = f"{work.replace('0.5', '60')}threading.Thread(target=work, daemon=True).start()"
    done = _ended(daemon, 3)
    assert (done.stdout, done.returncode) == ("", 3)


def test_a_profile_is_still_printed_and_a_closed_output_is_no_fault():
    command = [sys.executable, "-m", "cProfile", "-m", "jaxreg", "--version"]
    profile = subprocess.run(command, capture_output=True, text=True)
    assert "function calls" in profile.stdout and profile.returncode == 0
    closed = subprocess.run(
        f"{sys.executable} -m jaxreg --version >&-", shell=True, capture_output=True, text=True
    )
    assert (closed.stderr, closed.returncode) == ("", 0)
