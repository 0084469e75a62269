"""The answer of a method for one pair: its velocity at each λ, and what the warp then is."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxreg.configuration.objective import LNCC_EPSILON, LNCC_WINDOW, ObjectiveConfig
from jaxreg.configuration.registration import REFINE_SMOOTHNESS
from jaxreg.evaluation import metrics
from jaxreg.losses.intensity import lncc
from jaxreg.losses.objective import moved_and_masks, moved_by
from jaxreg.losses.similarity import Masks
from jaxreg.pair import Pair
from jaxreg.progress import SILENT, Progress
from jaxreg.registration.deformable.method import Method
from jaxreg.registration.deformable.optimization import (
    half_grid,
    load_steps,
    optimize_velocity,
    taper,
    zero_velocity,
)
from jaxreg.registration.deformable.prediction import load_network, predicted
from jaxreg.spatial import displacement_of
from jaxreg.stored_programs import stored_program

OPTIMISED_SQUARINGS = 5
"""Squarings in each step of an optimisation; the answer itself has those of the objective."""


class Deformation(NamedTuple):
    """exp(v) of a pair at one λ, in voxels of the network grid.

    `similarity` is the mean squared local correlation (LNCC's cc²) over either brain, in [0, 1];
    `folds_percent` and `sdlogj` are those of the fixed brain.
    """

    lam: float
    displacement: Float[np.ndarray, "x y z 3"]
    inverse: Float[np.ndarray, "x y z 3"]
    moved: Float[np.ndarray, "x y z"]
    similarity: float
    folds_percent: float
    sdlogj: float


def deformations(
    method: Method, pair: Pair, lams: Sequence[float], *, progress: Progress = SILENT
) -> list[Deformation]:
    """The pair registered at each λ, on the network grid; a bar counts the λ, of one its steps.

    Labels of the pair, where it has some, take part in the optimisation as the objective says.
    """
    seen = pair.exchanged() if method.exchanged else pair
    sign = -1.0 if method.exchanged else 1.0
    one = len(lams) == 1
    velocities = _velocities(method, seen, lams, progress if one else SILENT)
    if not one:
        velocities = progress.each(velocities, total=len(lams), name="λ")
    images = pair._replace(fixed_labels=None, moving_labels=None)
    return [
        _deformation(images, taper(sign * velocity), lam, method.objective)
        for lam, velocity in zip(lams, velocities, strict=True)
    ]


def load_programs(method: Method, pair: Pair) -> Iterator[str]:
    """Make ready what `deformations` runs at one λ for a pair of these shapes, and say its name.

    Each program is compiled, or fetched from the cache on disk, when the next name is asked for.
    `pair` may have shapes and types in the place of arrays, and has labels where the pair will.
    """
    seen = pair.exchanged() if method.exchanged else pair
    if method.steps:
        optimised = _optimised(method)
        load_steps(
            seen, method.similarity, optimised, steps=method.steps, learning_rate=method.rate
        )
        yield "steps"
    if method.model is not None:
        load_network(method.model, seen, passes=method.passes)
        yield "network"
    images = pair._replace(fixed_labels=None, moving_labels=None)
    velocity = jax.ShapeDtypeStruct((*half_grid(pair.fixed.shape[:3]), 3), jnp.float32)
    _measured.load(images, velocity, config=method.objective)
    yield "measures"


def no_deformation(method: Method, pair: Pair) -> Deformation:
    """The pair as it lies; its λ is 1. Its similarity is taken as that of any other is."""
    still = np.zeros((*pair.fixed.shape[:3], 3), np.float32)
    similarity = float(_similarity_as_it_lies(pair, config=method.objective))
    return Deformation(1.0, still, still, np.asarray(pair.moving[..., 0]), similarity, 0.0, 0.0)


@stored_program(static_argnames=("config",))
def _similarity_as_it_lies(pair: Pair, config: ObjectiveConfig) -> Float[Array, ""]:
    return local_correlation(pair, *moved_by(pair, jnp.zeros((*pair.fixed.shape[:3], 3)), config))


def _deformation(pair, velocity, lam, config) -> Deformation:
    u, inverse, moved, similarity, folds, sdlogj = _measured(pair, velocity, config=config)
    arrays = np.asarray(u), np.asarray(inverse), np.asarray(moved)
    return Deformation(float(lam), *arrays, float(similarity), float(folds), float(sdlogj))


def _velocities(
    method: Method, pair: Pair, lams: Sequence[float], progress: Progress
) -> Iterator[Float[Array, "u v w 3"]]:
    """Velocities in the network's own order, refined where steps are asked for."""
    starts: Iterable[Float[Array, "u v w 3"]] = [zero_velocity(pair.fixed.shape[:3])] * len(lams)
    segmented = method.objective.label_weight > 0 and pair.fixed_labels is not None
    guided = method.model is not None and segmented
    optimised = _optimised(method)
    if method.model is not None:
        starts = predicted(method.model, pair, lams, passes=method.passes)
    for lam, start in zip(lams, starts, strict=True):
        if not method.steps:
            yield start
            continue
        yield optimize_velocity(
            jax.random.key(0),
            pair,
            jnp.float32(refined_lam(lam) if guided else lam),
            start,
            method.similarity,
            optimised,
            steps=method.steps,
            learning_rate=method.rate,
            progress=progress,
        )[0]


def _optimised(method: Method) -> ObjectiveConfig:
    """The objective of the steps: that of the method, with fewer squarings."""
    squarings = min(method.objective.squarings, OPTIMISED_SQUARINGS)
    return dataclasses.replace(method.objective, squarings=squarings)


def refined_lam(lam: float) -> float:
    """λ of a refinement that knows the anatomy: with `REFINE_SMOOTHNESS` of the roughness.

    The ends stay: at 0 similarity alone counts, at 1 smoothness alone.
    """
    smooth = REFINE_SMOOTHNESS * lam
    return smooth / (1 - lam + smooth)


@stored_program(static_argnames=("config",))
def _measured(pair: Pair, velocity: Float[Array, "u v w 3"], config: ObjectiveConfig):
    x, y, z = pair.fixed.shape[:3]
    u, inverse = (
        displacement_of(v, (x, y, z), squarings=config.squarings) for v in (velocity, -velocity)
    )
    moved, masks = moved_and_masks(pair, velocity, config)
    similarity = local_correlation(pair, moved, masks)
    brain = pair.fixed_mask
    folds, sdlogj = metrics.folds_percent(u, brain), metrics.sdlogj(u, brain)
    return u, inverse, moved[..., 0], similarity, folds, sdlogj


def local_correlation(pair: Pair, moved: Float[Array, "x y z 1"], masks: Masks) -> Float[Array, ""]:
    """Mean squared local correlation (LNCC's cc²) of fixed and moved over either brain, in [0, 1].

    It is measured in the same way whatever loss a registration minimises.
    """
    unlike = lncc(
        pair.fixed,
        moved,
        masks.brain,
        weight=masks.common,
        window=LNCC_WINDOW,
        epsilon=LNCC_EPSILON,
    )
    return 1 - unlike
