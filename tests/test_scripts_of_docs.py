"""The shell scripts of docs/scaling.md, run with a `jaxreg` that only notes what it was asked."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def script(page: str, containing: str) -> str:
    """The one shell block of a page that contains a text."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S
    )
    (found,) = [block for block in blocks if containing in block]
    return found


def run(text: str, place: Path, codes: list[int], **environment: str) -> tuple[int, list[str]]:
    """(exit code, commands of jaxreg) of a script in which jaxreg ends with these codes in turn."""
    (place / "codes").write_text("".join(f"{code}\n" for code in codes))
    (place / "called").touch()
    command = place / "jaxreg"
    command.write_text(
        f'#!/bin/bash\ncd "{place}"\necho "$*" >>called\n'
        'exit "$(sed -n "$(wc -l <called)p" codes)"\n'
    )
    command.chmod(0o755)
    path = f"{place}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", text], env={**os.environ, "PATH": path, **environment}, check=False
    )
    return ended.returncode, (place / "called").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "attempts", "code"),
    [
        ([0], 1, 0),
        ([75, 0], 2, 0),
        ([75, 1], 2, 1),
        ([137, 143, 0], 3, 0),
        ([130, 75, 75], 3, 75),
        ([1], 1, 1),
        ([2], 1, 2),
        ([70], 1, 70),
    ],
)
def test_the_loop_goes_on_while_the_same_command_can_do_more(tmp_path, codes, attempts, code):
    ended, called = run(script("scaling.md", "for attempt"), tmp_path, codes)
    assert (ended, len(called)) == (code, attempts) and len(set(called)) == 1


def test_the_array_registers_ten_rows_a_job(tmp_path):
    text = script("scaling.md", "#SBATCH --array")
    for task in ("1", "2"):
        assert run(text, tmp_path, [0, 0], SLURM_ARRAY_TASK_ID=task)[0] == 0
    _, called = run(":", tmp_path, [0, 0])
    rows = [command.split()[-2:] for command in called]
    assert rows == [["--rows", "1-10"], ["--rows", "11-20"]]
