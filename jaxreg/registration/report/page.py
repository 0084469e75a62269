"""`report.html`: one self-contained page about a registration.

Pictures travel in it as compressed bytes. Equal reports give equal bytes.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real
from markupsafe import Markup

from jaxreg import spatial
from jaxreg.evaluation.figures.colours import DICE_COLOURS
from jaxreg.geometry.grid import Grid
from jaxreg.registration.output.checks import Number, verdict_of
from jaxreg.registration.report import encoding
from jaxreg.registration.report.html import flat, page_file, script_json, write_page

_FLAGS = {"pass": "✓ usual", "warn": "! look", "fail": "✗ wrong?", "info": ""}


@dataclass(frozen=True)
class Frame:
    """The pair at one λ of the sweep, on the display grid.

    Attributes:
        lam: λ, in [0, 1].
        moved: the moved image, intensities as in `Report.moved`.
        displacement: its deformable part, voxels of the display grid.
        folds_percent: percentage of voxels with det J ≤ 0.
        similarity: of fixed and moved; higher means more alike.
    """

    lam: float
    moved: Float[np.ndarray, "x y z"]
    displacement: Float[np.ndarray, "x y z 3"]
    folds_percent: float
    similarity: float


@dataclass(frozen=True)
class Brain:
    """What was taken for the brain of one side.

    Attributes:
        role: Fixed or Moving.
        png: slices with the mask's outline and the structures.
        extracted: whether the mask is that of the segmentation.
        litres: the volume of the brain that was segmented.
    """

    role: str
    png: bytes
    extracted: bool
    litres: float

    @property
    def source(self) -> Markup:
        """The picture as a URL."""
        return _picture_url(self.png)


@dataclass(frozen=True)
class Estimate:
    """The estimated Dice of each structure.

    Attributes:
        rows: (structure, its estimated Dice) as they are to be read.
        png: slices of the fixed image with each structure in the colour of its estimated Dice.
    """

    rows: tuple[tuple[str, str], ...]
    png: bytes

    @property
    def source(self) -> Markup:
        """The picture as a URL."""
        return _picture_url(self.png)

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """(colour, what it stands for) from the lowest Dice to the highest."""
        starts = [*DICE_COLOURS]
        spans = [f"{a:g} to {b:g}" for a, b in zip(starts[1:], starts[2:], strict=False)]
        words = [f"below {starts[1]:g}", *spans, f"{starts[-1]:g} and above"]
        return tuple(zip(DICE_COLOURS.values(), words, strict=True))


@dataclass(frozen=True)
class Report:
    """What the page shows. Volumes are RAS; all but `moving` lie on the display grid.

    Attributes:
        title: the heading.
        fixed: the fixed image, any range of intensities.
        affine_moved: the moving image after the affine alone.
        moving: the moving image on its own grid, before anything; any range of intensities.
        moved: the moving image after affine and warp, in the units of `affine_moved`.
        displacement: the deformable part, voxels of the display grid; it pulls `affine_moved` back.
        jacobian: its determinant, ≤ 0 where it folds.
        spacing_mm: of the display grid.
        affine: of the display grid's indices to the fixed image's space, RAS mm.
        fixed_grid: the grid of the fixed image's file.
        moving_spacing_mm: of `moving`.
        frames: the sweep in ascending λ; empty without one.
        spread_mm: how far the displacement differs between neighbouring λ, None without a sweep.
        numbers: the table of measurements.
        warnings: what the user should know, a sentence each.
        provenance: versions, settings, hashes; nested dicts of what JSON can hold.
        lam: λ of the result itself, if it has one.
        brains: the segmented sides; empty without segmentation.
        estimate: the estimated Dice of each structure; None without segmentation.
    """

    title: str
    fixed: Real[np.ndarray, "x y z"]
    affine_moved: Real[np.ndarray, "x y z"]
    moving: Real[np.ndarray, "i j k"]
    moved: Real[np.ndarray, "x y z"]
    displacement: Float[np.ndarray, "x y z 3"]
    jacobian: Real[np.ndarray, "x y z"]
    spacing_mm: tuple[float, float, float]
    affine: Float[np.ndarray, "4 4"]
    fixed_grid: Grid
    moving_spacing_mm: tuple[float, float, float]
    frames: tuple[Frame, ...]
    spread_mm: Real[np.ndarray, "x y z"] | None
    numbers: tuple[Number, ...]
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]
    lam: float | None = None
    brains: tuple[Brain, ...] = ()
    estimate: Estimate | None = None


def write_report(path: Path | str, report: Report) -> None:
    """Write the page of a registration that gave a result.

    About 1.5 MB at 80 × 96 × 80 voxels, and 0.25 MB for each frame.

    Raises:
        InputError: the folder does not exist, or the page cannot be written.
    """
    write_page(
        path,
        "result.html",
        script=page_file("pictures.js") + page_file("controls.js"),
        title=report.title,
        verdict=verdict_of(report.numbers, report.warnings),
        flags=_FLAGS,
        numbers=report.numbers,
        warnings=report.warnings,
        frames=report.frames,
        brains=report.brains,
        estimate=report.estimate,
        provenance=flat(report.provenance),
        data=script_json(_payload(report)),
    )


def _picture_url(png: bytes) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(png).decode("ascii"))


def _payload(report: Report) -> dict[str, Any]:
    """What the scripts draw from."""
    window = encoding.intensity_window(report.affine_moved)
    moving_window = encoding.intensity_window(report.moving)
    fixed_window = encoding.intensity_window(report.fixed)
    return {
        "shape": report.fixed.shape,
        "spacing_mm": report.spacing_mm,
        "to_world": report.affine.tolist(),
        "to_fixed_voxel": (np.linalg.inv(report.fixed_grid.affine) @ report.affine).tolist(),
        "fixed_shape": report.fixed_grid.shape,
        "moving_shape": report.moving.shape,
        "moving_spacing_mm": report.moving_spacing_mm,
        "determinant_steps": encoding.DETERMINANT_STEPS,
        "fixed": encoding.text(encoding.grey(report.fixed, fixed_window)),
        "affine": encoding.text(encoding.grey(report.affine_moved, window)),
        "moving": encoding.text(encoding.grey(report.moving, moving_window)),
        "spread": _spread(report.spread_mm),
        "lam": report.lam,
        "result": _pictures([report.moved], [report.displacement], [report.jacobian], window),
        "lams": [frame.lam for frame in report.frames],
        "folds_percent": [_known(frame.folds_percent) for frame in report.frames],
        "similarity": [_known(frame.similarity) for frame in report.frames],
        "frames": _sweep(report.frames, window),
    }


def _sweep(frames: Sequence[Frame], window: tuple[float, float]) -> dict[str, Any] | None:
    if not frames:
        return None
    displacements = [frame.displacement for frame in frames]
    jacobians = [np.asarray(_determinant(jnp.asarray(u))) for u in displacements]
    return _pictures([frame.moved for frame in frames], displacements, jacobians, window)


_determinant = jax.jit(spatial.jacobian_determinant)


def _pictures(moved, displacements, jacobians, window) -> dict[str, Any]:
    """Moved images, displacements and determinants of one or more results, in the same order."""
    values, unit = encoding.vectors(displacements)
    return {
        "count": len(moved),
        "moved": encoding.text(encoding.differences([encoding.grey(m, window) for m in moved])),
        "displacement": encoding.text(values),
        "unit": unit,
        "jacobian": encoding.text(
            encoding.differences([encoding.determinants(j) for j in jacobians])
        ),
    }


def _spread(spread_mm: np.ndarray | None) -> dict[str, Any] | None:
    if spread_mm is None:
        return None
    levels, top_mm = encoding.lengths(spread_mm)
    return {"data": encoding.text(levels), "top_mm": top_mm}


def _known(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None
