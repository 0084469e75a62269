"""A command whose output nobody reads any more ends without a word, like other programs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxreg import cli

ROOT = Path(__file__).resolve().parents[2]
PIPE = 128 + signal.SIGPIPE


def run_unread(code, *, streams, unbuffered):
    """(exit code, what else it said) of a program whose `streams` lead into a closed pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    stdout, stderr = (writer if s in streams else subprocess.PIPE for s in ("stdout", "stderr"))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    command = [sys.executable, "-c", f"import sys\nfrom jaxreg import cli\n{code}"]
    process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=ROOT, env=environment)
    os.close(writer)
    said = b"".join(part or b"" for part in process.communicate(timeout=300))
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], *([c, "--help"] for c in cli.COMMANDS)]
)
def test_help_into_a_closed_pipe_is_no_error(argv):
    code = f"sys.exit(cli.main({argv}))"
    assert run_unread(code, streams=["stdout"], unbuffered=argv[0] > "d") == (PIPE, "")


@pytest.mark.parametrize("unbuffered", [True, False])
def test_so_is_an_error_line_and_what_a_command_prints(unbuffered):
    code = "sys.exit(cli.main(['nonsense']))"
    assert run_unread(code, streams=["stderr"], unbuffered=unbuffered) == (PIPE, "")
    code = "from jaxreg.commands import apply\napply.main = lambda argv: print('x' * 99)\n"
    code += "sys.exit(cli.main(['apply']))"
    assert run_unread(code, streams=["stdout"], unbuffered=unbuffered) == (PIPE, "")


def test_another_pipe_that_breaks_is_an_error():
    code = "from jaxreg.commands import apply\n"
    code += "def lost(argv):\n    raise BrokenPipeError('the cluster')\n"
    code += "apply.main = lost\nsys.exit(cli.main(['apply']))"
    status, said = run_unread(code, streams=[], unbuffered=True)
    assert (status, said) == (75, "jaxreg: BrokenPipeError: the cluster\n")
