"""The commit of a checkout read without git; git itself is the oracle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxreg.io import commit
from jaxreg.io.commit import commit_of, own_commit

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *argv):
    name = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *name, *argv], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=a/branch")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=first")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=second")
    return folder


@needs_git
def test_the_commit_is_the_one_that_git_names(checkout, tmp_path):
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")
    git(checkout, "pack-refs", "--all")
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")
    git(checkout, "checkout", "--quiet", "--detach", "HEAD~1")
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")
    beside = tmp_path / "beside"
    git(checkout, "worktree", "add", "--quiet", "-b", "other", str(beside), "a/branch")
    assert commit_of(beside) == git(beside, "rev-parse", "HEAD") != commit_of(checkout)
    git(checkout, "pack-refs", "--all")
    assert commit_of(beside) == git(beside, "rev-parse", "HEAD")


def test_a_folder_that_is_no_checkout_has_none(tmp_path):
    assert commit_of(tmp_path) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert commit_of(tmp_path) is None
    (tmp_path / ".git" / "HEAD").write_text("something else\n")
    assert commit_of(tmp_path) is None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"vcs_info": {"vcs": "git", "commit_id": COMMIT}, "url": "https://example.org"}, COMMIT),
        ({"dir_info": {}, "url": "file:///somewhere"}, None),
        (None, None),
    ],
)
def test_pip_says_the_commit_of_what_it_installed_from_a_repository(
    record, expected, monkeypatch, tmp_path
):
    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return None if record is None else json.dumps(record)

    monkeypatch.setattr(commit.importlib.metadata, "distribution", lambda name: Distribution())
    monkeypatch.setattr(commit, "__file__", str(tmp_path / "jaxreg" / "io" / "commit.py"))
    assert own_commit.__wrapped__() == expected


@needs_git
def test_a_build_in_a_checkout_keeps_its_commit_and_no_module_of_an_earlier_one(
    checkout, monkeypatch, tmp_path
):
    """A small package built by the real setup.py, and the real reader."""
    shutil.copy(ROOT / "setup.py", checkout)
    (checkout / "jaxreg" / "io").mkdir(parents=True)
    shutil.copy(ROOT / "jaxreg" / "io" / "commit.py", checkout / "jaxreg" / "io")
    (checkout / "pyproject.toml").write_text(
        '[project]\nname = "jaxreg"\nversion = "1"\n'
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[tool.setuptools.packages.find]\ninclude = ["jaxreg*"]\n'
    )
    build = [
        sys.executable,
        "setup.py",
        "--quiet",
        "build",
        f"--build-lib={tmp_path / 'installed'}",
    ]
    (checkout / "jaxreg" / "gone.py").touch()
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    assert (tmp_path / "installed" / "jaxreg" / "gone.py").is_file()
    (checkout / "jaxreg" / "gone.py").unlink()
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    assert not (tmp_path / "installed" / "jaxreg" / "gone.py").exists()
    monkeypatch.setattr(
        commit, "__file__", str(tmp_path / "installed" / "jaxreg" / "io" / "commit.py")
    )
    assert own_commit.__wrapped__() == git(checkout, "rev-parse", "HEAD")
