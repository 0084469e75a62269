"""What the report of a registration shows: its pictures, numbers, warnings and provenance."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxreg.data.prepare.freesurfer_labels import structure_name
from jaxreg.geometry.grid import Volume, coarser_grid
from jaxreg.geometry.resampling import resample
from jaxreg.registration.inputs import Subject
from jaxreg.registration.output.checks import Number
from jaxreg.registration.output.estimate import EstimatedDice
from jaxreg.registration.register import Registration
from jaxreg.registration.report.brains import brain_picture, estimate_picture
from jaxreg.registration.report.page import Brain, Estimate, Frame, Report
from jaxreg.spatial import jacobian_determinant

_jacobian = jax.jit(jacobian_determinant)


def report_of(
    result: Registration,
    numbers: tuple[Number, ...],
    provenance: dict[str, Any],
    estimate: EstimatedDice | None,
    *,
    title: str,
) -> Report:
    """What report.html shows, on the network grid in the fixed space."""
    pair, chosen = result.pair, result.chosen
    moving = Volume(result.moving.image.array, result.moving.image.affine)
    if min(moving.spacing_mm) < min(result.grid.spacing_mm):
        coarse_mm = min(result.grid.spacing_mm)
        if np.prod(coarser_grid(moving, coarse_mm)[0]) < moving.array.size:
            moving = resample(moving, coarse_mm)
    frames = tuple(
        Frame(d.lam, d.moved, d.displacement, d.folds_percent, d.similarity) for d in result.curve
    )
    return Report(
        title=title,
        fixed=np.asarray(pair.fixed[..., 0]),
        affine_moved=np.asarray(pair.moving[..., 0]),
        moving=moving.array,
        moved=chosen.moved,
        displacement=chosen.displacement,
        jacobian=np.asarray(_jacobian(chosen.displacement)),
        spacing_mm=result.grid.spacing_mm,
        affine=result.grid.affine,
        fixed_grid=result.fixed.header.grid,
        moving_spacing_mm=moving.spacing_mm,
        frames=frames,
        spread_mm=spread_mm(result),
        numbers=numbers,
        warnings=result.warnings,
        provenance=provenance,
        lam=float(chosen.lam),
        brains=tuple(
            Brain(role, brain_picture(side, side.brain), side.extracted, side.brain.litres)
            for role, side in (("Fixed", result.fixed), ("Moving", result.moving))
            if side.brain is not None
        ),
        estimate=_estimate(result.fixed, estimate),
    )


def _estimate(fixed: Subject, estimate: EstimatedDice | None) -> Estimate | None:
    """The estimated Dice of each structure, as a table and as a map of the fixed image."""
    if estimate is None or fixed.brain is None:
        return None
    each = estimate.structures
    return Estimate(
        tuple((structure_name(number), f"{dice:.2f}") for number, dice in each.items()),
        estimate_picture(fixed, fixed.brain, each),
    )


def spread_mm(result: Registration) -> Float[np.ndarray, "x y z"] | None:
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
