"""The numbers of a registration, and whether they give cause for worry."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxreg.evaluation import metrics
from jaxreg.geometry.grid import Volume, coarser_grid
from jaxreg.geometry.resampling import resample
from jaxreg.io.images import reordered
from jaxreg.registration.deformable.grid import in_millimetres
from jaxreg.registration.deformable.lambda_selection import RULE
from jaxreg.registration.output.files import Outputs
from jaxreg.registration.register import Registration
from jaxreg.registration.report import build
from jaxreg.spatial import jacobian_determinant

FOLDS_WARN_PERCENT = 0.1
SCALES_WARN = (0.6, 1.6)
"""Determinants of an affine between two adults' brains lie well inside."""
INVERSE_WARN_MM = 0.5
_VOXELS, _STRUCTURES = 2**18, 32
"""Dice is computed for multiples of so many, so images of many sizes share a program."""


class Dice(NamedTuple):
    """Mean Dice over the labels that both images have, after the affine and in the end."""

    affine: float
    moved: float
    labels: int


def metrics_of(result: Registration, outputs: Outputs) -> dict[str, float]:
    """The run's numbers by name: millimetres, percentages, similarity and Dice in [0, 1].

    `folds_percent` is counted on the network grid, where the deformation lives; `jacobian_min` on
    the fixed grid, inside the fixed mask. `similarity` is the mean squared local correlation (LNCC,
    7³ voxels of the network grid).
    """
    chosen = result.chosen
    mask = reordered(Volume(result.fixed.mask, result.fixed.image.affine), outputs.warp.grid)
    shift_mm = in_millimetres(chosen.displacement, result.grid).vectors
    length_mm = np.linalg.norm(shift_mm, axis=-1)
    inside = np.asarray(result.pair.fixed_mask)
    numbers = {
        "lam": chosen.lam,
        "similarity_affine": result.before.similarity,
        "similarity": chosen.similarity,
        "folds_percent": chosen.folds_percent,
        "sdlogj": chosen.sdlogj,
        "jacobian_min": float(outputs.jacobian[mask].min()),
        "jacobian_max": float(outputs.jacobian[mask].max()),
        "displacement_mean_mm": float(length_mm[inside].mean()),
        "displacement_max_mm": float(length_mm[inside].max()),
        "inverse_consistency_mm": float(
            _inverse_consistency(
                chosen.displacement, chosen.inverse, inside, jnp.array(result.grid.spacing_mm)
            )
        ),
        "affine_determinant": float(np.linalg.det(result.affine[:3, :3])),
    }
    if result.config.transform != "deformable":
        del numbers["lam"]
    overlap = dice_of(result, outputs)
    if overlap is not None:
        numbers |= {
            "dice_affine": overlap.affine,
            "dice": overlap.moved,
            "dice_labels": float(overlap.labels),
        }
    return numbers


_dice = jax.jit(metrics.dice)
_jacobian = jax.jit(jacobian_determinant)
_inverse_consistency = jax.jit(metrics.inverse_consistency_mm)


def dice_of(result: Registration, outputs: Outputs) -> Dice | None:
    """Mean Dice over the labels of both images; None without label maps or a common label."""
    if outputs.affine_labels is None or outputs.moved_labels is None:
        return None
    assert result.fixed.labels is not None and result.moving.labels is not None
    fixed = _filled(reordered(result.fixed.labels, outputs.warp.grid), _VOXELS, 0)
    both = np.intersect1d(result.fixed.labels.array, result.moving.labels.array)
    both = both[both != 0]
    if not len(both):
        return None
    structures = _filled(both, _STRUCTURES, np.iinfo(np.int32).min)[:, 0, 0]
    values = [
        float(jnp.nanmean(_dice(fixed, _filled(labels, _VOXELS, 0), structures)))
        for labels in (outputs.affine_labels, outputs.moved_labels)
    ]
    return Dice(values[0], values[1], len(both))


def _filled(labels: np.ndarray, multiple: int, first: int) -> Int[Array, "n 1 1"]:
    """Labels in a row, and labels that count for nothing up to a multiple: few shapes to compile.

    Those are `first` and what follows it where they have to be distinct, as structures have.
    """
    lacking = -labels.size % multiple
    more = first + np.arange(lacking) * (first != 0)
    return jnp.asarray(np.append(labels.ravel(), more).reshape(-1, 1, 1), jnp.int32)


def numbers_of(result: Registration, values: dict[str, float]) -> tuple[build.Number, ...]:
    """The numbers as lines for people, each with pass, warn or info."""
    deformable = result.config.transform == "deformable"
    low, high = SCALES_WARN
    determinant = values["affine_determinant"]
    note = f"volume change of the linear part; {low} to {high} is usual between two heads"
    rows = [
        _number("determinant of the affine", f"{determinant:.3f}", note, low <= determinant <= high)
    ]
    if deformable:
        rows += _deformable_numbers(values, RULE if result.curve else "as given, or the default")
    else:
        similarity = f"{values['similarity']:.3f}"
        note = f"after the {result.config.transform} part; 1 is perfect"
        rows.append(_number("similarity (local cc²)", similarity, note))
    if "dice" in values:
        before, after = values["dice_affine"], values["dice"]
        text = f"{before:.3f} → {after:.3f}" if deformable else f"{after:.3f}"
        note = f"mean over {values['dice_labels']:.0f} labels that both images have"
        rows.append(_number("Dice", text, note, after >= before))
    return tuple(rows)


def _deformable_numbers(values: dict[str, float], lam_note: str) -> list[build.Number]:
    """λ, similarity, folds, det J, lengths and inverse consistency."""
    before, after = values["similarity_affine"], values["similarity"]
    folds, lowest = values["folds_percent"], values["jacobian_min"]
    error = values["inverse_consistency_mm"]
    mean_mm, most_mm = values["displacement_mean_mm"], values["displacement_max_mm"]
    return [
        _number("λ", f"{values['lam']:g}", lam_note),
        _number(
            "similarity (local cc²)",
            f"{before:.3f} → {after:.3f}",
            "after the affine → in the end; 1 is perfect",
            after >= before,
        ),
        _number(
            "folds",
            f"{folds:.4f} %",
            "voxels with det J ≤ 0 on the grid of the deformation",
            folds <= FOLDS_WARN_PERCENT,
        ),
        _number(
            "det J in the mask",
            f"{lowest:.2f} … {values['jacobian_max']:.2f}",
            "local volume change of the deformable part; at most 0 is a fold",
            lowest > 0,
        ),
        _number(
            "displacement",
            f"{mean_mm:.1f} mm, at most {most_mm:.1f}",
            "of the deformable part, in the fixed mask",
        ),
        _number(
            "inverse consistency",
            f"{error:.3f} mm",
            "mean distance after going there and back",
            error <= INVERSE_WARN_MM,
        ),
    ]


def _number(name: str, value: str, note: str, good: bool | None = None) -> build.Number:
    """A line of the table; without a verdict it only informs."""
    status = "info" if good is None else ("pass" if good else "warn")
    return build.Number(name, value, status, note)


def report_of(
    result: Registration,
    numbers: tuple[build.Number, ...],
    provenance: dict[str, Any],
    *,
    title: str,
) -> build.Report:
    """What report.html shows, on the network grid in the fixed space."""
    pair, chosen = result.pair, result.chosen
    moving = Volume(result.moving.image.array, result.moving.image.affine)
    if min(moving.spacing_mm) < min(result.grid.spacing_mm):
        coarse_mm = min(result.grid.spacing_mm)
        if np.prod(coarser_grid(moving, coarse_mm)[0]) < moving.array.size:
            moving = resample(moving, coarse_mm)
    frames = tuple(
        build.Frame(d.lam, d.moved, d.displacement, d.folds_percent, d.similarity)
        for d in result.curve
    )
    return build.Report(
        title=title,
        fixed=np.asarray(pair.fixed[..., 0]),
        affine_moved=np.asarray(pair.moving[..., 0]),
        moving=moving.array,
        moved=chosen.moved,
        displacement=chosen.displacement,
        jacobian=np.asarray(_jacobian(chosen.displacement)),
        spacing_mm=result.grid.spacing_mm,
        moving_spacing_mm=moving.spacing_mm,
        frames=frames,
        spread_mm=spread_mm(result),
        numbers=numbers,
        warnings=result.warnings,
        provenance=provenance,
        lam=float(chosen.lam),
    )


def spread_mm(result: Registration) -> np.ndarray | None:
    """Spread of the displacement over λ within 0.2 of the chosen one, mm; None without a sweep.

    The root of the summed variances of its three components.
    """
    near = [d for d in result.curve if abs(d.lam - result.chosen.lam) < 0.2 + 1e-6]
    if len(near) < 2:
        return None
    stack = np.stack([d.displacement for d in near]) * np.asarray(
        result.grid.spacing_mm, np.float32
    )
    return np.sqrt(stack.var(axis=0).sum(axis=-1))
