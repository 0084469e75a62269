"""Who imports whom in jaxreg, for the tests of the layers and for their picture.

`python tests/helpers/import_graph.py docs/layers.svg` draws the layers that `pyproject.toml` lists
(`[tool.importlinter]`), with one arrow for each package that imports another one. All arrows point
downwards; `tests/test_conventions.py` fails where one does not.
"""

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "jaxreg").rglob("*.py"))
}
"""Every module of jaxreg, packages among them, and its file."""


def layers() -> list[list[str]]:
    """The parts of each layer, the highest layer first; a part is a module or package of jaxreg."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]
    rows = [row.replace(":", "|").split("|") for row in contract["layers"]]
    return [[part.strip(" ()") for part in row] for row in rows]


@functools.cache
def imported_names(module: str) -> frozenset[str]:
    """The names that a module's source imports at any depth, but for annotations alone."""
    return frozenset(_import_statements(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def _import_statements(tree: ast.Module) -> Iterator[str]:
    for_annotations = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_annotations:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def imported_modules(module: str) -> set[str]:
    """The modules of jaxreg that a module imports."""
    return {name for name in imported_names(module) if name in MODULES} - {"jaxreg", module}


def part_of(module: str) -> str:
    """The part of a layer to which a module belongs."""
    return module.split(".")[1]


def part_edges() -> set[tuple[str, str]]:
    """(importing part, imported part) for every pair of different parts."""
    return {
        (part_of(module), part_of(other))
        for module in MODULES
        if module not in ("jaxreg", "jaxreg.__main__")
        for other in imported_modules(module)
        if part_of(module) != part_of(other)
    }


def draw(path: Path) -> None:
    """Draw the layers from top to bottom, and an arrow for every import between their parts."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "jaxreg"  # the same bytes every time
    import matplotlib.pyplot as plt

    there = {part_of(module) for module in MODULES if module != "jaxreg"}
    rows = [[part for part in row if part in there] for row in layers()]
    rows = [row for row in rows if row]
    places = {
        part: ((n + 0.5 - len(row) / 2) * 3.0 + 0.5 * (-1) ** level, -1.25 * level)
        for level, row in enumerate(rows)
        for n, part in enumerate(row)
    }
    figure, axes = plt.subplots(figsize=(9, 10))
    for start, end in sorted(part_edges() | {("cli", "commands")}):  # by the name that is asked for
        curve = f"arc3,rad={0.12 if places[start][0] <= places[end][0] else -0.12}"
        arrow = {"arrowstyle": "-|>", "color": "0.55", "lw": 0.7, "connectionstyle": curve}
        arrow |= {"shrinkA": 14, "shrinkB": 14}
        axes.annotate("", xy=places[end], xytext=places[start], arrowprops=arrow)
    for part, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.4", "fc": "#e8eef7", "ec": "#33517e"}
        axes.text(x, y, part, ha="center", va="center", fontsize=11, bbox=box)
    axes.set_xlim(min(x for x, _ in places.values()) - 2, max(x for x, _ in places.values()) + 2)
    axes.set_ylim(min(y for _, y in places.values()) - 0.8, 0.8)
    axes.axis("off")
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
