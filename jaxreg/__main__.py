"""`python -m jaxreg`: the command `jaxreg` of this very Python, wherever its scripts lie."""

import sys

from jaxreg.cli import main

if __name__ == "__main__":
    sys.exit(main())
