"""The console command `jaxreg`: its commands, and how it ends.

One line says what is wrong with the input (exit code 2) or with the machine (75); a fault of jaxreg
shows its traceback (70). `jaxreg.errors` tells them apart.
"""

import atexit
import contextlib
import io
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from jaxreg import runtime
from jaxreg._version import __version__
from jaxreg.errors import EXIT_CODES, EnvironmentFailure, InputError, kind_of, reason_of

COMMANDS = {
    "register": "align a moving image with a fixed one, or a table of pairs",
    "bids": "register the images of a BIDS data set, written as derivatives",
    "group": "write one page over the pairs that several jobs have registered",
    "sweep": "register a pair at every λ from 0 to 1 and write the whole curve",
    "normalize": "bring a subject to MNI152 or another template, and labels back",
    "apply": "move an image, a label map or points by saved transforms",
    "convert": "write a warp in the form that FSL or FreeSurfer reads",
    "segment": "find the brain and its structures in images of any contrast",
    "compare": "register a pair with jaxreg and others (ANTs, greedy, elastix, …)",
    "prepare": "make a cohort for training from HCP, BIDS or IXI, or from a table",
    "train": "train autoencoders, the registration network or the segmentation",
    "eval": "score a trained network over λ, or compare several networks",
    "demo": "register and train on simulated brains; --pair-only takes a minute",
}
"""Each is a module of `jaxreg.commands`; in the order in which a newcomer meets them."""
_ON_ONE_DEVICE = ("register", "bids", "sweep", "normalize", "segment", "compare", "demo")
"""The commands that compute with JAX and are no part of a job of several processes."""
CLOSED_OUTPUT = 141
"""The exit code where nobody reads the output: 128 and the number of SIGPIPE."""


def console() -> NoReturn:
    """Run the command of the command line, and end the process with its exit code.

    What was registered for the end is done (JAX's, temporary folders), but the objects are not
    taken apart, which took half a second after a registration. A training ends as Python does,
    because a logger of the user's own may hold an open file.
    """
    code = main()
    if sys.argv[1:2] == ["train"] or _waited_for():
        sys.exit(code)
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):  # of what these functions print
        for stream in _output():
            _flush(stream)
    os._exit(code)


def _waited_for() -> bool:
    """Whether somebody waits for the ordinary end: a thread, a profiler, or a prompt (`-i`)."""
    prompt = sys.flags.inspect or os.environ.get("PYTHONINSPECT")
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    profiled = monitoring is not None and any(map(monitoring.get_tool, range(6)))
    others = set(threading.enumerate()) - {threading.main_thread()}
    at_work = any(not thread.daemon for thread in others)
    return at_work or profiled or bool(sys.getprofile() or sys.gettrace() or prompt)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    Where nobody reads what it prints any more, as in `jaxreg --help | head -1`, it ends without a
    word, with the code of a program that SIGPIPE ends.
    """
    for stream in _output():
        if isinstance(stream, io.TextIOWrapper):  # λ and odd file names, in any locale
            stream.reconfigure(errors="backslashreplace")
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(argv)
        finally:
            for stream in _output():
                _flush(stream)  # here: at the end of the interpreter, Python would complain
    except BrokenPipeError as error:
        if not _drop_closed_output():
            return _failed(error, argv)  # of another pipe, such as a cluster's
        code = CLOSED_OUTPUT
        processes = _processes()
        return code if processes is None else processes.leave(code)


def _output() -> list[Any]:
    """Standard output and error, where they are open."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _flush(stream: Any) -> None:
    """Flush a stream; where a disk is full its last lines are lost, and nothing else is."""
    try:
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def _drop_closed_output() -> bool:
    """Whether a pipe that nobody reads is standard output or error, which then leads nowhere."""
    closed = _closed_pipes() if hasattr(select, "poll") else _refusing_output()
    for number in closed:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), number)
    return bool(closed)


def _closed_pipes() -> list[int]:
    """The numbers of standard output and error that are pipes which nobody reads."""
    pipes = select.poll()
    for stream in _output():
        with contextlib.suppress(io.UnsupportedOperation):
            pipes.register(stream, 0)
    return [number for number, event in pipes.poll(0) if event & (select.POLLERR | select.POLLHUP)]


def _refusing_output() -> list[int]:
    """The same where the system cannot be asked (Windows): the first that refuses a blank line."""
    for stream in _output():
        try:
            stream.write("\n")
            stream.flush()
        except OSError:
            return [stream.fileno()]
    return []


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        print(f"jaxreg {__version__}")
        return 0
    runtime.prepare()
    try:
        if argv[0] not in COMMANDS:
            raise InputError(f"expected one of {', '.join(COMMANDS)}; got {argv[0]!r}.")
        asked = os.environ.get("JAX_PLATFORMS", "")  # a CPU is there without asking JAX
        if argv[0] in _ON_ONE_DEVICE and asked not in ("", "cpu") and "--help" not in argv:
            from jaxreg.distributed import require_platform

            require_platform()
        command = import_module(f"jaxreg.commands.{argv[0]}")
        return command.main(argv[1:]) or 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as error:
        signum = getattr(
            error, "signum", None
        )  # of a training run that saved its state and said so
        if signum is None:
            return _end("interrupted.", 128 + signal.SIGINT)
        return 128 + signum
    except Exception as error:
        processes = None if isinstance(error, InputError) else _processes()
        lost = None if processes is None else processes.lost(error)
        return _failed(error if lost is None else EnvironmentFailure(lost), argv)


def _help() -> str:
    """What `jaxreg --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{description}" for name, description in COMMANDS.items()]
    return "\n".join(
        [
            "usage: jaxreg COMMAND [flags]",
            "",
            "Deformable registration of brain images of different contrasts.",
            "",
            *lines,
            "",
            "`jaxreg COMMAND --help` lists the flags of a command; `jaxreg --version` prints the "
            "version.",
        ]
    )


def _failed(error: Exception, argv: Sequence[str]) -> int:
    """Say why the command failed; returns its exit code.

    With --json, standard output gets the reason and its kind too.
    """
    kind, reason = kind_of(error), reason_of(error)
    if "--json" in argv:
        values = {"kind": kind, "reason": reason, "exit_code": EXIT_CODES[kind]}
        print(json.dumps({"error": values}, ensure_ascii=False))
    if kind == "internal":
        traceback.print_exception(error)
        reason = f"this is a fault of jaxreg, not of its input: {reason}"
    return _end(reason, EXIT_CODES[kind])


def _end(message: str, code: int) -> int:
    """Say why the command ends, and of several processes which one this is."""
    processes = _processes()
    label = "" if processes is None else processes.label()
    print(f"jaxreg: {label}{message}", file=sys.stderr)
    return code if processes is None else processes.leave(code)


def _processes() -> Any:
    """The module of the processes of one job; None where JAX is not loaded, so there is one."""
    if "jax" not in sys.modules:
        return None
    from jaxreg import distributed

    return distributed
