"""The page of a run, `report.html`: numbers, warnings, provenance; of a failed run the reason."""

import html
import json
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float32
from numpy import ndarray


class Frame(NamedTuple):
    """One λ of a sweep; displacements are in voxels of the display grid."""

    lam: float
    moved: Float32[ndarray, "x y z"]
    displacement: Float32[ndarray, "x y z 3"]
    folds_percent: float
    similarity: float


class Number(NamedTuple):
    """A line of the table; `status` is pass, warn or info."""

    name: str
    value: str
    status: str
    note: str


class Report(NamedTuple):
    """What the page shows: arrays on one display grid in RAS order (`moving` on its own)."""

    title: str
    fixed: Float32[ndarray, "x y z"]
    affine_moved: Float32[ndarray, "x y z"]
    moving: Float32[ndarray, "u v w"]
    moved: Float32[ndarray, "x y z"]
    displacement: Float32[ndarray, "x y z 3"]
    jacobian: Float32[ndarray, "x y z"]
    spacing_mm: tuple[float, float, float]
    moving_spacing_mm: tuple[float, float, float]
    frames: tuple[Frame, ...]
    spread_mm: Float32[ndarray, "x y z"] | None
    numbers: tuple[Number, ...]
    warnings: tuple[str, ...]
    provenance: dict[str, Any]


def write_report(path: Path, report: Report) -> None:
    """Write the page of a run."""
    rows = [f"<tr><td>{'</td><td>'.join(map(html.escape, n))}</td></tr>" for n in report.numbers]
    warnings = [f"<li>{html.escape(line)}</li>" for line in report.warnings]
    body = f"<table>{''.join(rows)}</table><ul>{''.join(warnings)}</ul>"
    _write(path, report.title, body, report.provenance)


def write_failure_report(path: Path, reason: str, provenance: dict[str, Any]) -> None:
    """Write the page of a run that failed."""
    _write(path, "registration failed", f"<p>{html.escape(reason)}</p>", provenance)


def _write(path: Path, title: str, body: str, provenance: dict[str, Any]) -> None:
    record = html.escape(json.dumps(provenance, indent=2, ensure_ascii=False))
    head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
    page = f"{head}<h1>{html.escape(title)}</h1>{body}<pre>{record}</pre>\n"
    path.write_text(page, encoding="utf-8")
