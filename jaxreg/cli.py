"""The console command `jaxreg`: train, eval, demo. Exit code 2 with one line on wrong input."""

import argparse
import sys
from collections.abc import Sequence

from jaxreg import runtime
from jaxreg.errors import InputError

COMMANDS = ("train", "eval", "demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: jaxreg {{{','.join(COMMANDS)}}} [flags]; `jaxreg COMMAND --help` explains.")
        return 0 if argv else 2
    runtime.prepare()
    from jaxreg import commands  # after prepare: it starts JAX
    from jaxreg.training.loop import Interrupted

    try:
        if argv[0] not in COMMANDS:
            raise InputError(f"expected one of {', '.join(COMMANDS)}; got {argv[0]!r}.")
        getattr(commands, argv[0])(argv[1:])
    except InputError as error:
        print(f"jaxreg: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        return 128 + error.signum
    except KeyboardInterrupt:
        print("jaxreg: interrupted before the first step.", file=sys.stderr)
        return 130
    return 0


def stage_of(argv: Sequence[str]) -> tuple[str | None, str, list[str]]:
    """(stage, preset, the other flags) of `train`'s command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--stage")
    parser.add_argument("--preset", default="paper")
    known, rest = parser.parse_known_args(argv)
    return known.stage, known.preset, rest
