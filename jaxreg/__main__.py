"""`python -m jaxreg`: the command `jaxreg` of this very Python, wherever its scripts lie."""

from jaxreg.cli import console

if __name__ == "__main__":
    console()
