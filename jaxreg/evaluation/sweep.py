"""The λ sweep: every pair of a split registered at every λ and scored on the cohort's own grid."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxreg.data.volumes import Volumes
from jaxreg.evaluation import metrics
from jaxreg.evaluation.statistics import mean_known
from jaxreg.models.model import Model, over_lams, velocities
from jaxreg.spatial import displacement_of, resize_displacement, warp


class Score(NamedTuple):
    """One pair at one λ (None: no registration); Dice is NaN where one subject lacks it.

    Folds and SDlogJ are those of the fixed brain, on the cohort's own grid. `seconds` are
    those of the pair's sweep, divided by its λ.
    """

    fixed: str
    moving: str
    lam: float | None
    dice: Float[np.ndarray, " s"]
    folds_percent: float
    sdlogj: float
    seconds: float

    @property
    def mean_dice(self) -> float:
        """Mean over the structures that both subjects have; NaN where they share none."""
        return mean_known(self.dice)


def displacements(
    config: Any,
    network_params: Any,
    fixed: Float[Array, "x y z 1"],
    moving: Float[Array, "x y z 1"],
    lams: Sequence[float],
    *,
    squarings: int,
) -> Iterator[tuple[list[float], Float[Array, "l x y z 3"], float]]:
    """(λs, displacements, seconds a λ) chunk by chunk, on the grid of the images."""
    x, y, z, _ = fixed.shape
    shape = (x, y, z)
    begin = time.perf_counter()
    for chunk, velocity in velocities(network_params, fixed, moving, lams, config=config):
        displacement = _integrated(velocity, shape=shape, squarings=squarings)
        displacement = jax.block_until_ready(displacement)
        seconds = (time.perf_counter() - begin) / len(velocity)
        yield chunk, displacement[: len(chunk)], seconds
        begin = time.perf_counter()


def score_pair(
    model: Model,
    volumes: Volumes,
    native: Volumes,
    pair: tuple[str, str],
    lams: Sequence[float],
) -> Iterator[tuple[Score, np.ndarray | None]]:
    """Scores of no registration and of each λ, with the displacement on the cohort's own grid.

    `volumes` are on the training grid, `native` (labels, the fixed mask) on the cohort's.
    """
    fixed_id, moving_id = pair
    domains = model.config.cohort.domain_pair
    fixed = jnp.asarray(volumes.scan(fixed_id, domains[0]).image)
    moving = jnp.asarray(volumes.scan(moving_id, domains[1]).image)
    fixed_labels, moving_labels = (jnp.asarray(native.labels(p)) for p in pair)
    mask = jnp.asarray(native.scan(fixed_id, domains[0]).mask)
    structures = jnp.asarray(sorted(native.cohort.structures), jnp.int32)
    both = np.asarray(_present(fixed_labels, moving_labels, structures))
    plain = np.asarray(_dice(fixed_labels, moving_labels, structures))
    yield Score(fixed_id, moving_id, None, np.where(both, plain, np.nan), 0.0, 0.0, 0.0), None
    factor = tuple(a / b for a, b in zip(volumes.spacing_mm, native.native_spacing_mm, strict=True))
    squarings = model.config.objective.squarings
    for chunk, displacement, seconds in displacements(
        model.config.network, model.params["network"], fixed, moving, lams, squarings=squarings
    ):
        for lam, coarse in zip(chunk, displacement, strict=True):
            u, dice, folds, sdlogj = _score(
                coarse, fixed_labels, moving_labels, mask, structures, native.native_shape, factor
            )
            value = np.where(both, np.asarray(dice), np.nan)
            yield (
                Score(
                    fixed_id,
                    moving_id,
                    float(lam),
                    value,
                    float(folds),
                    float(sdlogj),
                    seconds,
                ),
                np.asarray(u),
            )


@functools.partial(jax.jit, static_argnames=("shape", "factor"))
def _score(
    displacement: Float[Array, "i j k 3"],
    fixed_labels: Int[Array, "x y z"],
    moving_labels: Int[Array, "x y z"],
    mask: Bool[Array, "x y z"],
    structures: Int[Array, " s"],
    shape: tuple[int, int, int],
    factor: tuple[float, float, float],
):
    if any(f != 1 for f in factor):
        displacement = resize_displacement(displacement, shape, factor)
    moved = warp(moving_labels[..., None], displacement, order=0)[..., 0]
    return (
        displacement,
        metrics.dice(fixed_labels, moved, structures),
        metrics.folds_percent(displacement, mask),
        metrics.sdlogj(displacement, mask),
    )


@functools.partial(jax.jit, static_argnames=("shape", "squarings"))
def _integrated(velocity: Float[Array, "l u v w 3"], *, shape: tuple[int, int, int], squarings):
    return over_lams(functools.partial(displacement_of, shape=shape, squarings=squarings), velocity)


_dice = jax.jit(metrics.dice)
_present = jax.jit(metrics.present)
