"""The commit of git that this jaxreg was taken from, read without git."""

import functools
import importlib.metadata
import json
import re
from pathlib import Path

KEPT = "commit.txt"
"""The file in a built package."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@functools.cache
def own_commit() -> str | None:
    """The commit of the checkout that this package lies in, was built in, or was installed from.

    None where the package was built from an archive. Changes that were not committed are not seen.
    """
    package = Path(__file__).parents[1]
    return commit_of(package.parent) or _kept_commit(package) or _installed_commit()


def commit_of(checkout: Path) -> str | None:
    """The commit that is checked out in a folder; None where it is no checkout of git."""
    try:
        git = _git_folder(checkout)
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return _commit(head)
        shared = git / "commondir"  # of a work tree beside others
        common = git / shared.read_text(encoding="utf-8").strip() if shared.is_file() else git
        return _resolved(common, head.removeprefix("ref: "))
    except (OSError, UnicodeDecodeError):
        return None


def _git_folder(checkout: Path) -> Path:
    """Where git keeps its files: `.git`, or the folder that the file `.git` names."""
    git = checkout / ".git"
    if git.is_file():
        return checkout / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
    return git


def _resolved(common: Path, ref: str) -> str | None:
    """The commit of a branch, from its own file or from the packed ones."""
    if (common / ref).is_file():
        return _commit((common / ref).read_text(encoding="utf-8").strip())
    for line in (common / "packed-refs").read_text(encoding="utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return _commit(commit)
    return None


def _kept_commit(package: Path) -> str | None:
    """The commit that `setup.py` wrote into the package."""
    try:
        return _commit((package / KEPT).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None


def _installed_commit() -> str | None:
    """The commit that pip recorded of an installation from a repository (PEP 610)."""
    try:
        text = importlib.metadata.distribution("jaxreg").read_text("direct_url.json")
        return _commit(json.loads(text or "{}")["vcs_info"]["commit_id"])
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return None


def _commit(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None
