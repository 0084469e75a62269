"""The numbers of a registration as lines for the user, each with its verdict and its meaning."""

from dataclasses import dataclass
from typing import Literal

from jaxreg.registration.deformable.lambda_selection import RULE
from jaxreg.registration.register import Registration

Status = Literal["pass", "warn", "info"]

FOLDS_WARN_PERCENT = 0.1
SCALES_WARN = (0.6, 1.6)
"""Determinants of an affine between two adults' brains lie well inside."""
INVERSE_WARN_MM = 0.5


@dataclass(frozen=True)
class Number:
    """A line of the table: what was measured, its value as it is to be read, and what it means."""

    name: str
    value: str
    status: Status
    note: str


def numbers_of(result: Registration, values: dict[str, float]) -> tuple[Number, ...]:
    """The numbers as lines for readers, each with pass, warn or info."""
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


def _deformable_numbers(values: dict[str, float], lam_note: str) -> list[Number]:
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
            "voxels of the fixed brain with det J ≤ 0, on the grid of the deformation",
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


def _number(name: str, value: str, note: str, good: bool | None = None) -> Number:
    """A line of the table; without a verdict it only informs."""
    status = "info" if good is None else ("pass" if good else "warn")
    return Number(name, value, status, note)
