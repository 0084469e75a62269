"""Sweep λ over a split and score it; the same as `jaxreg eval`."""

import sys

from jaxreg.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
