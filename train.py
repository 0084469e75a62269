"""Train stage 1 (--stage=ae) or stage 2 (--stage=reg); the same as `jaxreg train`."""

import sys

from jaxreg.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
