"""The console command `jaxreg`. Exit code 2 with one line on wrong input."""

import importlib
import signal
import sys
from collections.abc import Sequence

from jaxreg import runtime
from jaxreg.errors import InputError

COMMANDS = (
    "train",
    "eval",
    "prepare",
    "register",
    "apply",
    "convert",
    "sweep",
    "compare",
    "demo",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: jaxreg {{{','.join(COMMANDS)}}} [flags]; `jaxreg COMMAND --help` explains.")
        return 0 if argv else 2
    runtime.prepare()
    try:
        if argv[0] not in COMMANDS:
            raise InputError(f"expected one of {', '.join(COMMANDS)}; got {argv[0]!r}.")
        return importlib.import_module(f"jaxreg.commands.{argv[0]}").main(argv[1:]) or 0
    except InputError as error:
        return _fail(" ".join(str(error).splitlines()), 2)
    except KeyboardInterrupt as error:
        signum = getattr(
            error, "signum", None
        )  # of a training run that saved its state and said so
        if signum is None:
            return _fail("interrupted.", 128 + signal.SIGINT)
        return 128 + signum
    except (RuntimeError, ValueError) as error:
        lost = _processes().lost(error)
        if lost is None:
            raise
        return _fail(lost, 2)


def _fail(message: str, code: int) -> int:
    """Say why the command ends, and of several processes which one this is."""
    processes = _processes()
    print(f"jaxreg: {processes.label()}{message}", file=sys.stderr)
    return processes.leave(code)


def _processes():
    return importlib.import_module("jaxreg.distributed")  # JAX, which `runtime.prepare` precedes
