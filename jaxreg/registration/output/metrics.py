"""The numbers of a registration: similarity, folds, lengths, inverse consistency, Dice."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jaxreg.evaluation import metrics
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.io.images import reordered
from jaxreg.registration.deformable.grid import in_millimetres
from jaxreg.registration.output.estimate import EstimatedDice
from jaxreg.registration.output.files import Outputs
from jaxreg.registration.register import Registration
from jaxreg.stored_programs import StoredProgram


def metrics_of(
    result: Registration, outputs: Outputs, estimate: EstimatedDice | None
) -> dict[str, float]:
    """The run's numbers by name: millimetres, percentages, similarity and Dice in [0, 1].

    `folds_percent` and `sdlogj` are taken on the network grid, where the deformation lives,
    `jacobian_min` on the fixed grid, all of them inside the fixed mask. `similarity` is the
    mean squared local correlation (LNCC, 7³ voxels of the network grid).
    """
    chosen = result.chosen
    mask = reordered(Volume(result.fixed.mask, result.fixed.image.affine), result.fixed.header.grid)
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
        "mask_overlap": _overlap(inside, np.asarray(result.pair.moving_mask)),
        "affine_determinant": float(np.linalg.det(result.affine[:3, :3])),
    }
    if result.config.transform != "deformable":
        del numbers["lam"]
    if estimate is not None:
        numbers["estimated_dice_affine"] = estimate.affine
        numbers["estimated_dice"] = estimate.mean
        numbers["estimated_dice_low"] = estimate.low
        numbers["estimated_dice_high"] = estimate.high
    return numbers | _dice_numbers(result, outputs)


def _overlap(one: Bool[np.ndarray, "x y z"], other: Bool[np.ndarray, "x y z"]) -> float:
    """Dice of two masks."""
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


_inverse_consistency = StoredProgram(metrics.inverse_consistency_mm)


def _dice_numbers(result: Registration, outputs: Outputs) -> dict[str, float]:
    """Mean Dice over the labels of both images; none without label maps or a common label."""
    fixed, moving = result.fixed.labels, result.moving.labels
    if fixed is None or moving is None:
        return {}
    assert outputs.affine_labels is not None and outputs.moved_labels is not None
    shared = metrics.shared_labels(fixed.array, moving.array)
    if not len(shared):
        return {}
    return {
        "dice_affine": dice_of(fixed, moving, outputs.affine_labels, result.fixed.header.grid),
        "dice": dice_of(fixed, moving, outputs.moved_labels, result.fixed.header.grid),
        "dice_labels": float(len(shared)),
    }


def dice_of(
    fixed: Volume, moving: Volume, moved_labels: Int[np.ndarray, "x y z"], grid: Grid
) -> float:
    """Mean Dice of moved labels over the labels that both maps have; NaN where there is none.

    `fixed` and `moving` are the label maps as they were read; `moved_labels` lie on `grid`, the
    fixed image's own, in the order of its file.
    """
    shared = metrics.shared_labels(fixed.array, moving.array)
    if not len(shared):
        return float("nan")
    return metrics.mean_dice(reordered(fixed, grid), moved_labels, shared)
