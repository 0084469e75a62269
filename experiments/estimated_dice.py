"""How well the estimated Dice predicts that of true labels, on good, bad and failed registrations.

    python experiments/estimated_dice.py --data=ixi --split=test --pairs=4 --out=rows.jsonl

Each pair is registered as `jaxreg register` does, by direct optimisation, by the network alone at
λ 0, 0.5 and 1, from a start that is 12 mm off, and with a moving image that was damaged (noise,
blur, its lower part lost). The network's result is also turned and shifted after the registration.
A row has the estimate, the verdict, the Dice of the labels, and what else might predict it; the end
of the output says how well each does. Rows that are in `--out` already count, so that several
cohorts may share a file.

`--hard` registers with more steps and larger weights of the segmentations instead, and
`--same-subject` the T1w and the T2w of each subject by a rigid map, which is then moved.
`--copies=2` registers each pair twice more, with copies of the moving image that are turned by 5°
and shifted by 3 mm, and takes the maps back: how far they then lie apart is another predictor.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxreg import runtime

runtime.prepare()

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from jaxreg.configuration.registration import RegisterConfig  # noqa: E402
from jaxreg.data.cohort import neighbour_pairs, read_cohort  # noqa: E402
from jaxreg.evaluation import metrics  # noqa: E402
from jaxreg.geometry.grid import Grid, Volume  # noqa: E402
from jaxreg.geometry.transforms import (  # noqa: E402
    affine_points,
    compose,
    map_points,
    resample,
    resample_by,
)
from jaxreg.io.images import read_image, reordered, write  # noqa: E402
from jaxreg.io.itk_transforms import write_affine  # noqa: E402
from jaxreg.registration.clock import Clock  # noqa: E402
from jaxreg.registration.linear.starts import read_affine  # noqa: E402
from jaxreg.registration.output.checks import numbers_of, verdict_of  # noqa: E402
from jaxreg.registration.output.estimate import EstimatedDice, estimated_dice  # noqa: E402
from jaxreg.registration.output.files import make_outputs  # noqa: E402
from jaxreg.registration.output.metrics import dice_of, metrics_of  # noqa: E402
from jaxreg.registration.register import Registration, register_pair  # noqa: E402

CENTRE_MM = (0.0, -18.0, 10.0)
"""About the middle of the brain in the cohorts' space."""
MOVED = ((3.0, 3.0), (6.0, 6.0), (20.0, 30.0), (0.0, 180.0))
"""By how many mm and degrees a finished registration is shifted and turned."""
COPY_MOVED = 3.0, 5.0
"""By how many mm and degrees a copy of a moving image is shifted and turned."""
LITTLE_MOVED = ((1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0))
"""The same for the rigid map of one subject."""
HARD = ((20, 8.0), (40, 8.0), (100, 8.0), (16, 32.0), (40, 32.0), (100, 32.0))
"""Steps of refinement and weights of the segmentations."""
MORE = 6
"""Voxels that such a copy has more at each face."""
BANDS = (0.0, 0.45, 0.58, 0.65, 0.7, 1.0)
"""Dice by which the verdicts are counted."""
DAMAGES = ("noise", "blur", "lower part lost")
PREDICTORS = ("estimate", "similarity", "displacement", "inverse_consistency", "spread")


@dataclass(frozen=True)
class Config:
    """Which pairs are registered."""

    data: Path
    """Folder of a prepared cohort with labels."""
    split: str = "test"
    """Split whose neighbouring pairs are registered."""
    pairs: int = 4
    """How many of them."""
    copies: int = 0
    """How many moved copies of each moving image are registered too."""
    refine: int | None = None
    """Steps of refinement instead of the usual ones; direct optimisation is then left out."""
    hard: bool = False
    """More steps of refinement and larger weights of the segmentations, instead of all else."""
    same_subject: bool = False
    """A T1w and the T2w of each subject by a rigid map, as it is found and then moved, instead."""
    out: Path = Path("estimated_dice.jsonl")
    """Where a row of JSON for each registration is appended."""


def main(config: Config) -> None:
    """Append the rows of a cohort, and print how well each predictor does over all rows."""
    cohort = read_cohort(config.data)
    members = [
        [p for p in cohort.members(config.split, d) if cohort.file(p, "dseg").is_file()]
        for d in ("T1w", "T2w")
    ]
    pairs = neighbour_pairs(*members)
    if config.same_subject:
        pairs = [(subject, subject) for subject in members[0] if subject in members[1]]
    for number, (fixed, moving) in enumerate(pairs[: config.pairs]):
        files = {
            "fixed_labels": cohort.file(fixed, "dseg"),
            "moving_labels": cohort.file(moving, "dseg"),
        }
        images = cohort.file(fixed, "T1w"), cohort.file(moving, "T2w")
        with tempfile.TemporaryDirectory() as folder:
            for row in rows_of(*images, files, Path(folder), number, config):
                row = {"cohort": config.data.name, "fixed": fixed, "moving": moving, **row}
                print(json.dumps(row), flush=True)
                with config.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    report([json.loads(line) for line in config.out.read_text().splitlines()])


def rows_of(
    fixed: Path, moving: Path, files: dict[str, Path], folder: Path, number: int, config: Config
) -> Iterator[dict[str, Any]]:
    """The registrations of a pair, good, bad and failed."""
    random, refine = np.random.default_rng(number), config.refine

    def row(name: str, path: Path = moving, **settings: Any) -> tuple[Registration, dict[str, Any]]:
        result = registered(fixed, path, files, **settings)
        motions = random_motions(config.copies, number)
        spread = spread_mm(result, fixed, path, folder, motions, settings) if motions else None
        return result, {**measured(name, result), "spread": None if spread is None else -spread}

    if config.same_subject:
        usual, first = row("as it comes", same_subject=True)
        yield first
        yield from moved(usual, LITTLE_MOVED, random)
        return
    if config.hard:
        for steps, weight in HARD:
            name = f"{steps} steps, weight {weight:g}"
            yield row(name, refine=steps, label_weight=weight)[1]
        return
    usual, first = row("as it comes", refine=refine)
    yield first
    if refine is None:
        yield row("direct optimisation", optimize_only=True)[1]
    for lam in (0.0, 0.5, 1.0):
        yield row(f"network alone, λ {lam:g}", lam=lam, refine=0, passes=1)[1]
    yield row("affine", transform="affine")[1]
    yield from moved(usual, MOVED, random)
    shift = np.eye(4)
    shift[1, 3] = 12.0
    write_affine(folder / "start.mat", shift @ usual.affine)
    yield row("start 12 mm off", init=str(folder / "start.mat"), refine=refine)[1]
    for damage in DAMAGES:
        path = folder / f"{damage.replace(' ', '-')}_T2w.nii.gz"
        write(path, damaged(read_image(moving), damage, random))
        yield row(f"moving image: {damage}", path, refine=refine)[1]


def moved(
    result: Registration, motions: tuple[tuple[float, float], ...], random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """The rows of a registration that is moved when it is finished."""
    for shift_mm, degrees in motions:
        motion = random_motion(shift_mm, degrees, random)
        row = measured(
            f"moved by {shift_mm:g} mm and {degrees:g}°",
            result._replace(affine=result.affine @ motion),
        )
        yield {**row, "verdict": None}  # it also rests on numbers that were taken before


def spread_mm(
    result: Registration,
    fixed: Path,
    moving: Path,
    folder: Path,
    motions: list[np.ndarray],
    settings: dict[str, Any],
) -> float:
    """How far the maps lie apart when moved copies of the moving image are registered as it was.

    The mean over the fixed brain of the root of the variance of the maps, the first one included.
    """
    brain = np.argwhere(result.fixed.mask)[::50].astype(float)
    points = affine_points(result.fixed.image.affine, brain)
    maps = [map_points(result.chain, points)]
    start = read_affine(settings["init"]) if "init" in settings else None
    for motion in motions:
        path = folder / f"copy_{moving.name}"
        write(path, moved_copy(read_image(moving), motion))
        if start is not None:
            write_affine(folder / "copy.mat", motion @ start)
            settings = {**settings, "init": str(folder / "copy.mat")}
        other = registered(fixed, path, {}, **settings)
        maps.append(affine_points(np.linalg.inv(motion), map_points(other.chain, points)))
    return float(np.sqrt(np.var(maps, axis=0).sum(axis=-1)).mean())


def moved_copy(image: Volume, motion: np.ndarray) -> Volume:
    """An extracted brain after a motion (its mm to the copy's), on a grid that is a bit larger."""
    wider = image.affine.copy()
    wider[:3, 3] = affine_points(image.affine, np.full((1, 3), -float(MORE)))[0]
    x, y, z = (n + 2 * MORE for n in image.array.shape)
    grid, back = Grid((x, y, z), wider), partial(affine_points, np.linalg.inv(motion))
    array = resample(image, back, grid, order=3)
    inside = resample(Volume((image.array > 0).astype(np.float32), image.affine), back, grid) > 0.5
    least = 1e-3 * array.max()
    return Volume(np.where(inside, np.maximum(array, least), 0).astype(np.float32), wider)


def registered(fixed: Path, moving: Path, files: dict[str, Path], **settings: Any) -> Registration:
    """A pair registered with some settings, without a word."""
    config = RegisterConfig(**files, **settings)
    return register_pair(fixed, moving, config, Clock(), say=lambda line: None)


def measured(name: str, result: Registration) -> dict[str, Any]:
    """The estimate and the Dice of a registration, and what else might predict it."""
    estimate = estimated_dice(result)
    outputs = make_outputs(result)
    numbers = metrics_of(result, outputs, estimate)
    fixed, moving = result.fixed.labels, result.moving.labels
    assert fixed is not None and moving is not None
    grid = result.fixed.header.grid
    labels = resample_by(moving, compose(partial(map_points, result.chain), grid), order=0)
    verdict = verdict_of(numbers_of(result, numbers), result.warnings)
    return {
        "kind": name,
        "dice": dice_of(fixed, moving, labels, grid),
        "estimate": None if estimate is None else estimate.mean,
        "structures": None
        if estimate is None
        else errors_of(estimate, fixed, moving, labels, grid),
        "verdict": verdict.state,
        "similarity": numbers["similarity"],
        "displacement": -numbers["displacement_mean_mm"],
        "inverse_consistency": -numbers["inverse_consistency_mm"],
    }


def errors_of(
    estimate: EstimatedDice, fixed: Volume, moving: Volume, labels: np.ndarray, grid: Grid
) -> list[float]:
    """Estimated minus true Dice of each structure that the estimate and both label maps have."""
    shared = [
        n for n in metrics.shared_labels(fixed.array, moving.array) if n in estimate.structures
    ]
    arrays = map(jnp.asarray, (reordered(fixed, grid), labels, shared))
    dice = metrics.dice(*arrays)
    return [estimate.structures[int(n)] - float(d) for n, d in zip(shared, dice, strict=True)]


def random_motion(shift_mm: float, degrees: float, random: np.random.Generator) -> np.ndarray:
    """A turn about a random axis through the brain's middle, and a shift in a random direction."""
    axis, direction = (v / np.linalg.norm(v) for v in random.normal(size=(2, 3)))
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    motion[:3, 3] = CENTRE_MM - motion[:3, :3] @ CENTRE_MM + shift_mm * direction
    return motion


def random_motions(copies: int, number: int) -> list[np.ndarray]:
    """How the copies of a pair's moving image are moved, the same in all of its registrations."""
    random = np.random.default_rng([number, 1])
    return [random_motion(*COPY_MOVED, random) for _ in range(copies)]


def damaged(image: Volume, damage: str, random: np.random.Generator) -> Volume:
    """An extracted brain with noise, blurred, or without its lower part."""
    array = image.array.astype(np.float32)
    brain = array > 0
    if damage == "noise":
        array = array + random.normal(0, 0.15 * array[brain].mean(), array.shape)
    elif damage == "blur":
        array = gaussian_filter(array, 1.2)
    else:
        brain[:, :, : int(0.42 * array.shape[2])] = False
    least = 1e-3 * array.max()
    return Volume(np.where(brain, np.maximum(array, least), 0).astype(np.float32), image.affine)


def report(rows: list[dict[str, Any]]) -> None:
    """Print how far the estimate lies from the Dice, and how each predictor orders the rows."""
    known = [row for row in rows if row["estimate"] is not None]
    groups = {"all": known}
    for row in known:
        groups.setdefault(row["cohort"], []).append(row)
        groups.setdefault(row["kind"], []).append(row)
    for name, members in groups.items():
        estimate, dice = (np.array([r[k] for r in members]) for k in ("estimate", "dice"))
        apart = np.abs(estimate - dice)
        print(
            f"{name}: {len(members)} registrations, Dice {dice.mean():.3f}, estimate "
            f"{estimate.mean():.3f}, mean error {apart.mean():.3f}, within 0.05 "
            f"{np.mean(apart <= 0.05):.0%}"
        )
    off = np.abs([e for row in known for e in row["structures"]])
    if len(off):
        print(
            f"single structures: {len(off)}, mean error {off.mean():.3f}, nine of ten within "
            f"{np.quantile(off, 0.9):.2f}"
        )
    for low, high in zip(BANDS[:-1], BANDS[1:], strict=True):
        states = [r["verdict"] for r in rows if r["verdict"] and low <= r["dice"] < high]
        shown = ", ".join(f"{states.count(s)} {s}" for s in ("green", "amber", "red"))
        print(f"Dice {low:g} to {high:g}: {shown}")
    own = [row for row in known if not row["kind"].startswith("moved by")]
    if any(row.get("spread") is not None for row in own):  # all predictors on the same rows
        own = [row for row in own if row.get("spread") is not None]
    for name in PREDICTORS:
        if own[0].get(name) is None:
            continue
        values, dice = ([row[key] for row in own] for key in (name, "dice"))
        print(f"{name}: rank correlation {spearmanr(values, dice)[0]:.3f} over {len(own)}")
    print(
        "estimate, moved ones too: rank correlation "
        f"{spearmanr([r['estimate'] for r in known], [r['dice'] for r in known])[0]:.3f}"
    )


if __name__ == "__main__":
    main(tyro.cli(Config))
