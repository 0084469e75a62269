"""The numbers of a registration: similarity, folds, lengths, inverse consistency, Dice."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxreg.evaluation import metrics
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import reordered
from jaxreg.registration.deformable.grid import in_millimetres
from jaxreg.registration.output.files import Outputs
from jaxreg.registration.register import Registration

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
