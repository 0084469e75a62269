"""The Dice that a registration most likely has, estimated from both images' own segmentations.

Both brains are segmented before they are registered. The overlap of the fixed segmentation with the
moved one is lower than the Dice of true labels where a segmentation is wrong, and higher where both
are wrong alike; what it says of the Dice was learned on validation pairs (docs/trust.md).
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.data.label_codes import NUMBERS, REST
from jaxreg.data.prepare.freesurfer_labels import structure_name
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import Chain, map_points, resample
from jaxreg.registration.register import Registration
from jaxreg.segmentation.brain import overlap
from jaxreg.segmentation.networks import load_segmentation
from jaxreg.segmentation.segment import mirrored_view

INDEPENDENT, REFINED, OPTIMISED = 0.892, 0.886, 0.861
"""Dice of true labels by the overlap of the segmentations: where these took no part in the map,
where they did after a network's answer, and in direct optimisation (80 steps). On validation pairs
of `ixi`, `rendered`, real scans and (for the second) whole heads, where each cohort counts alike;
the second was measured after 32 steps; after 16, that of `ixi` alone is higher by 0.003 and that of
`rendered` by 0.005 (docs/trust.md)."""
HALF_WIDTH = 0.05
"""Half of the interval: nearly all registrations of validation pairs lie within, and 95 % of those
of test pairs."""
SUBJECT_WIDTH = 0.27
"""How far the Dice may lie above the estimate where both images show one subject: labels that are
the same on both sides overlap fully, two segmentations do not. All 35 maps of validation subjects,
right ones and moved ones, lie within (docs/trust.md)."""


class EstimatedDice(NamedTuple):
    """The Dice of true labels that a registration most likely has.

    `mean` is that over the structures; the true one lies between `low` and `high` in nearly all
    cases. `affine` is that after the linear part alone. `structures` has each one's by FreeSurfer's
    number.
    """

    mean: float
    low: float
    high: float
    affine: float
    structures: dict[int, float]


def estimated_dice(result: Registration) -> EstimatedDice | None:
    """The estimate of a registration; None where a brain was not segmented."""
    sides = result.fixed, result.moving
    if any(side.brain is None for side in sides):
        return None
    fine = load_segmentation(result.config.segmentation)[1].fine
    fixed, moving = (mirrored_view(s.brain, fine) for s in sides if s.brain is not None)
    before, _ = own_overlap(fixed, moving, [result.affine])
    after, sizes = own_overlap(fixed, moving, result.chain)
    there = sizes > 0
    if not there.any():
        there = np.ones_like(there)
    dice = after * _share(result)
    mean = float(dice[there].mean())
    numbers = np.array(NUMBERS[1:REST])[there]
    below, above = HALF_WIDTH, HALF_WIDTH
    if result.config.same_subject:
        below, above = 0.0, SUBJECT_WIDTH
    return EstimatedDice(
        mean,
        max(mean - below, 0.0),
        min(mean + above, 1.0),
        float((before * INDEPENDENT)[there].mean()),
        {int(n): float(d) for n, d in zip(numbers, dice[there], strict=True)},
    )


def _share(result: Registration) -> float:
    """The Dice of true labels by the overlap of the segmentations, as a map was found."""
    method = result.method
    if result.config.transform != "deformable" or not method.steps:
        return INDEPENDENT
    if method.objective.label_weight == 0:
        return INDEPENDENT
    return OPTIMISED if method.model is None else REFINED


def as_record(estimate: EstimatedDice | None) -> dict[str, Any] | None:
    """An estimate as JSON values, its structures by name."""
    if estimate is None:
        return None
    structures = {structure_name(n): round(d, 3) for n, d in estimate.structures.items()}
    return {**estimate._asdict(), "structures": structures}


def own_overlap(
    fixed: Volume, moving: Volume, chain: Chain
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """(Dice, size of the smaller one in voxels) of each structure of the two segmentations.

    Both are codes. The overlap is taken on the grid of the fixed ones, the template grid laid onto
    that brain. `chain` takes the fixed image's millimetres to the moving one's.
    """
    codes, there = fixed.array, functools.partial(map_points, chain)
    moved = resample(moving, there, Grid(fixed.array.shape, fixed.affine), order=0)
    return overlap(codes, moved)
