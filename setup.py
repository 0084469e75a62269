"""Builds the package anew, with the commit of its checkout; all else stands in pyproject.toml."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithCommit(build_py):
    """Writes the commit into the package that is built, where the source is a checkout of git.

    What an earlier build left in `build` is not packed: its modules may exist no more.
    """

    def run(self):
        """Build, and add the file that `jaxreg.io.commit` reads."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib, "jaxreg"), ignore_errors=True)
        super().run()
        source = runpy.run_path(str(ROOT / "jaxreg" / "io" / "commit.py"))
        commit = source["commit_of"](ROOT)
        if commit is not None and not self.editable_mode:
            kept = Path(self.build_lib, "jaxreg", source["KEPT"])
            kept.write_text(f"{commit}\n", encoding="utf-8")


setup(cmdclass={"build_py": BuildWithCommit})
