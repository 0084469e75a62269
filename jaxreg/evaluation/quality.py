"""What is scored at one λ alone, for its cost: surface distance, folded volume, inverse."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxreg.data.volumes import Volumes
from jaxreg.evaluation import metrics
from jaxreg.evaluation.statistics import mean_known
from jaxreg.models.model import Model, velocities
from jaxreg.spatial import displacement_of, resize_displacement, warp


class Quality(NamedTuple):
    """One registered pair, on the cohort's own grid.

    Attributes:
        hd95_mm: 95th percentile Hausdorff distance, mean over the structures of both subjects that
            the warp leaves; NaN where there is none.
        ndv_percent: non-diffeomorphic volume (Liu 2024) in % of the fixed brain's.
        inverse_consistency_mm: mean ‖φ⁻¹(φ(x)) − x‖ over the fixed subject's mask.
    """

    hd95_mm: float
    ndv_percent: float
    inverse_consistency_mm: float


def quality(
    model: Model, volumes: Volumes, native: Volumes, pair: tuple[str, str], lam: float
) -> Quality:
    """Scores of a pair registered at λ.

    `volumes` are on the training grid, `native` (labels, the fixed mask) on the cohort's.
    """
    fixed_id, moving_id = pair
    domains = model.config.cohort.domain_pair
    fixed, moving = (
        jnp.asarray(volumes.scan(p, d).image) for p, d in zip(pair, domains, strict=True)
    )
    network = model.params["network"]
    [(_, velocity)] = velocities(network, fixed, moving, [lam], config=model.config.network)
    spacing = native.native_spacing_mm
    moved, ndv, error = _score(
        velocity[0],
        jnp.asarray(native.labels(moving_id)),
        jnp.asarray(native.scan(fixed_id, domains[0]).mask),
        grid=fixed.shape[:3],
        shape=native.native_shape,
        factor=tuple(a / b for a, b in zip(volumes.spacing_mm, spacing, strict=True)),
        squarings=model.config.objective.squarings,
        spacing_mm=spacing,
    )
    hd95 = _mean_hd95_mm(native, fixed_id, np.asarray(moved))
    return Quality(hd95, float(ndv), float(error))


def quality_of_no_registration(native: Volumes, pair: tuple[str, str]) -> Quality:
    """Scores of a pair as it lies."""
    return Quality(_mean_hd95_mm(native, pair[0], native.labels(pair[1])), 0.0, 0.0)


def _mean_hd95_mm(native, fixed_id, moved_labels):
    structures = np.array(sorted(native.cohort.structures))
    labels = native.labels(fixed_id)
    return mean_known(metrics.hd95_mm(labels, moved_labels, structures, native.native_spacing_mm))


@functools.partial(jax.jit, static_argnames=("grid", "shape", "factor", "squarings", "spacing_mm"))
def _score(
    velocity: Float[Array, "u v w 3"],
    moving_labels: Int[Array, "x y z"],
    mask: Bool[Array, "x y z"],
    *,
    grid: tuple[int, int, int],
    shape: tuple[int, int, int],
    factor: tuple[float, float, float],
    squarings: int,
    spacing_mm: tuple[float, float, float],
) -> Any:
    displacement, inverse = (
        displacement_of(v, grid, squarings=squarings) for v in (velocity, -velocity)
    )
    if any(f != 1 for f in factor):
        displacement = resize_displacement(displacement, shape, factor)
        inverse = resize_displacement(inverse, shape, factor)
    return (
        warp(moving_labels[..., None], displacement, order=0)[..., 0],
        metrics.non_diffeomorphic_volume(displacement, mask),
        metrics.inverse_consistency_mm(displacement, inverse, mask, spacing_mm),
    )
