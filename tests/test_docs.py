"""The README and the pages name files that are there; mkdocs itself checks the pages' links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
FILE = re.compile(
    r"(?<![\w/.-])(?:jaxreg|tests|experiments|benchmarks|notebooks|docs)/[\w./-]+\.\w+"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    lost = [t for t in LINK.findall(page.read_text("utf-8")) if not (page.parent / t).exists()]
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_are_named_exist(page):
    text = LINK.sub("]", page.read_text("utf-8"))
    lost = [p for p in set(FILE.findall(text)) if not (ROOT / p).exists()]
    assert not lost


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [
        p.relative_to(ROOT / "docs").as_posix() for p in PAGES if p.is_relative_to(ROOT / "docs")
    ]
    assert [p for p in pages if p not in navigation] == []


CALL = re.compile(r"\bjaxreg\.(?:register|sweep|segment|normalize|apply|compare|train|evaluate)\(")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_first_example_in_python_prepares_the_process(page):
    """Without that a script is slower than the command, and has other last digits."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    calling = [block for block in blocks if CALL.search(block)]
    if calling:
        begin = CALL.split(calling[0])[0]
        assert "from jaxreg import runtime" in begin and "runtime.prepare()" in begin
