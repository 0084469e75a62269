"""Where the accuracy of a registration is lost: Dice of true labels after each part of it.

    python experiments/where_lost.py --data=ixi --pairs=1

For neighbouring pairs of a split: the linear start, the affine that true labels would have given,
each pass of the network, its refinement after some steps, the refinement by each of its two terms
alone, and what stands in for a perfect one: the moving subject's own image in the fixed contrast
for the similarity, true labels for the segmentations. The refined answer also at other λ, and what
resampling itself costs: the fixed labels, carried to the moving image and back.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import tyro  # noqa: E402

from jaxreg.configuration.registration import REFINE_RATE, RegisterConfig  # noqa: E402
from jaxreg.data.cohort import Cohort, neighbour_pairs, read_cohort  # noqa: E402
from jaxreg.data.label_codes import REST, encode  # noqa: E402
from jaxreg.data.prepare.freesurfer_labels import STRUCTURES  # noqa: E402
from jaxreg.evaluation import metrics  # noqa: E402
from jaxreg.geometry.grid import Volume  # noqa: E402
from jaxreg.geometry.transforms import compose, map_points, resample, resample_by  # noqa: E402
from jaxreg.losses.soft_dice import soft_dice  # noqa: E402
from jaxreg.registration.clock import Clock  # noqa: E402
from jaxreg.registration.deformable.deformation import refined_lam  # noqa: E402
from jaxreg.registration.deformable.grid import one_side  # noqa: E402
from jaxreg.registration.deformable.optimization import optimize_velocity, taper  # noqa: E402
from jaxreg.registration.deformable.prediction import predicted  # noqa: E402
from jaxreg.registration.inputs import read_subject  # noqa: E402
from jaxreg.registration.output.metrics import dice_of  # noqa: E402
from jaxreg.registration.register import Registration, register_pair  # noqa: E402
from jaxreg.spatial import displacement_of, identity_grid  # noqa: E402

OTHER_LAMS = 0.2, 0.8


@dataclass(frozen=True)
class Config:
    """Which pairs, and how far they are refined."""

    data: Path
    """Folder of a prepared cohort with labels."""
    split: str = "val"
    """Split whose neighbouring pairs are registered."""
    pairs: int = 2
    """How many of them."""
    only: tuple[str, ...] = field(default_factory=tuple)
    """FIXED:MOVING pairs instead of the neighbours."""
    steps: tuple[int, ...] = (8, 16)
    """Numbers of steps after which the refinement is scored."""


def main(config: Config) -> None:
    """Print the Dice after each part, for each pair and in the mean."""
    cohort = read_cohort(config.data)
    pairs = [(f, m) for f, m in (pair.split(":") for pair in config.only)]
    if not pairs:
        members = [
            [p for p in cohort.members(config.split, d) if cohort.file(p, "dseg").is_file()]
            for d in ("T1w", "T2w")
        ]
        pairs = neighbour_pairs(*members)[: config.pairs]
    found: dict[str, list[float]] = {}
    for fixed, moving in pairs:
        print(f"{fixed} from {moving}", flush=True)
        for part, dice, folds in parts_of(cohort, fixed, moving, config.steps):
            print(f"  {part}: {dice:.4f}, folds {folds:.4f} %", flush=True)
            found.setdefault(part, []).append(dice)
    for part, values in found.items():
        print(f"{part}: mean {np.mean(values):.4f} over {len(values)}")


def parts_of(
    cohort: Cohort, fixed: str, moving: str, steps: tuple[int, ...]
) -> Iterator[tuple[str, float, float]]:
    """(what was done, Dice, folds in %) of a pair."""
    result = register_pair(
        cohort.file(fixed, "T1w"),
        cohort.file(moving, "T2w"),
        RegisterConfig(
            refine=0,
            fixed_labels=cohort.file(fixed, "dseg"),
            moving_labels=cohort.file(moving, "dseg"),
        ),
        Clock(),
        say=lambda line: None,
    )
    method, pair = result.method, result.pair._replace(fixed_labels=None, moving_labels=None)
    assert method.model is not None
    fixed_true, moving_true = map(jnp.asarray, true_labels(result))
    yield "linear start", *scored(result, jnp.zeros((*pair.fixed.shape[:3], 3)))
    yield "affine fitted to true labels", *scored(result, affine_of_labels(fixed_true, moving_true))
    for passes in (1, 2):
        (velocity,) = predicted(method.model, pair, [method.lam], passes=passes)
        yield f"network, passes: {passes}", *scored(result, shift(result, velocity))
    for lam in OTHER_LAMS:
        (other,) = predicted(method.model, pair, [lam], passes=2)
        yield f"refined at λ {lam:g}", *refined(result, other, result.pair, max(steps), lam=lam)
    yield "there and back", there_and_back(result), 0.0
    refine = partial(refined, result, velocity)
    own = result.pair
    for count in steps:
        yield f"refined, {count} steps", *refine(own, count)
    for count in steps:
        yield f"similarity alone, {count} steps", *refine(pair, count)
    only = {"scale": 0.0}
    yield "own segmentations alone", *refine(own, max(steps), **only)
    known = pair._replace(fixed_labels=fixed_true, moving_labels=moving_true)
    yield "true labels alone", *refine(known, max(steps), **only)
    same_contrast = cohort.file(moving, "T1w")
    if same_contrast.is_file():
        image, _, _ = one_side(read_subject("moving", same_contrast), result.affine, result.grid)
        yield "similarity within one contrast", *refine(pair._replace(moving=image), max(steps))


def there_and_back(result: Registration) -> float:
    """Dice of the fixed labels with themselves, after resampling by the map and by its inverse."""
    moving, fixed = result.moving.header.grid, result.fixed.header.grid
    labels = structures_of(result.fixed.labels)
    back, there = (
        compose(partial(map_points, chain), grid)
        for chain, grid in ((result.inverse_chain, moving), (result.chain, fixed))
    )
    carried = Volume(resample_by(labels, back, order=0), moving.affine)
    return dice_of(labels, carried, resample_by(carried, there, order=0), fixed)


def refined(
    result: Registration, start, pair, steps: int, *, scale: float = 1.0, lam: float | None = None
):
    """(Dice, folds) after some steps of refinement; a scale of 0 leaves out the similarity."""
    method = result.method
    lam = method.lam if lam is None else lam
    similarity = method.similarity if scale else _nothing
    velocity, _ = optimize_velocity(
        jax.random.key(0),
        pair,
        jnp.float32(refined_lam(lam) if pair.fixed_labels is not None else lam),
        start,
        similarity,
        dataclasses.replace(method.objective, squarings=5),
        steps=steps,
        learning_rate=REFINE_RATE,
    )
    return scored(result, shift(result, velocity))


def _nothing(key, fixed, moved, masks, *, start=None):
    """A similarity that sees nothing."""
    return jnp.zeros(()), {}


def shift(result: Registration, velocity):
    """The displacement of a velocity as it is used, voxels of the network grid."""
    shape = result.grid.shape
    return displacement_of(taper(velocity), shape, squarings=result.method.objective.squarings)


def scored(result: Registration, displacement) -> tuple[float, float]:
    """(Dice of the true labels, folds in % of the fixed brain) of a displacement."""
    grid = result.fixed.header.grid
    fixed, moving = (structures_of(side.labels) for side in (result.fixed, result.moving))
    chain = result.chain_of(result.before._replace(displacement=np.asarray(displacement)))
    moved = resample_by(moving, compose(partial(map_points, chain), grid), order=0)
    folds = metrics.folds_percent(displacement, result.pair.fixed_mask)
    return dice_of(fixed, moving, moved, grid), float(folds)


def structures_of(labels: Volume | None) -> Volume:
    """A label map without what is not scored, such as fluid."""
    assert labels is not None
    scored = np.isin(labels.array, list(STRUCTURES))
    return labels._replace(array=np.where(scored, labels.array, 0))


def true_labels(result: Registration) -> Iterator[np.ndarray]:
    """The true labels of both sides at the voxels of the network grid, as codes."""
    for side, to_image in ((result.fixed, np.eye(4)), (result.moving, result.affine)):
        assert side.labels is not None
        codes = encode(resample(side.labels, partial(map_points, [to_image]), result.grid, order=0))
        yield np.where(codes >= REST, 0, codes).astype(np.uint8)


def affine_of_labels(fixed, moving, steps: int = 60):
    """The displacement of the affine that most overlaps two label maps, voxels of their grid."""
    grid = identity_grid(fixed.shape)
    centre = jnp.asarray(fixed.shape) / 2
    optimizer = optax.adam(0.01)

    def displacement(matrix):  # one unit of the matrix moves the edge by about half of the grid
        at = jnp.concatenate([(grid - centre) / centre, jnp.ones_like(grid[..., :1])], axis=-1)
        return (at @ matrix.T) * centre

    @jax.jit
    def step(matrix, state):
        gradient = jax.grad(lambda m: -soft_dice(fixed, moving, displacement(m)))(matrix)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(matrix, updates), state

    matrix = jnp.zeros((3, 4))
    state = optimizer.init(matrix)
    for _ in range(steps):
        matrix, state = step(matrix, state)
    return displacement(matrix)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
