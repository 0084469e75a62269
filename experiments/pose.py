"""How well `jaxreg register` finds a known pose by its linear start.

    python experiments/pose.py --data=DATA --trials=200 --out=pose.tsv

`DATA` holds the cohorts of `KINDS`, each with `participants.tsv` and a folder for each subject.
In each trial, an image of a test subject is put into a random pose: one of the 24 orientations
along the axes, turned by up to 30° about a random axis, and shifted by up to 20 mm. It is resampled
to slices of 1 to 6 mm, and its header says that the head lies straight. It is then registered with
an image of the same subject in the original pose, of the other contrast where the cohort has one.
The error is the distance between the affine that was found and the known map, the mean over the
voxels of the true brain. A row for each trial is appended to `--out`; trials that stand there are
not run again.
"""

import csv
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxreg import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import tyro  # noqa: E402
from jaxtyping import Float  # noqa: E402
from scipy.ndimage import affine_transform  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from jaxreg.configuration.registration import RegisterConfig  # noqa: E402
from jaxreg.errors import InputError  # noqa: E402
from jaxreg.geometry.grid import Volume  # noqa: E402
from jaxreg.geometry.transforms import affine_points  # noqa: E402
from jaxreg.io.images import read_image, read_labels, write  # noqa: E402
from jaxreg.registration.clock import Clock  # noqa: E402
from jaxreg.registration.linear.overlap import overlap_between  # noqa: E402
from jaxreg.registration.register import register_pair  # noqa: E402

KINDS = (
    ("heads/ixi", "T1w", "T1w"),
    ("heads/labels", "T1w", "T2w"),
    ("ixi", "T1w", "T2w"),
    ("heads/labels", "T2w", "T1w"),
    ("rendered", "T1w", "T2w"),
)
"""Cohort, contrast of the fixed image, contrast of the moving image."""
HEAD = 500
"""The first label of the classes around the brain."""
SHIFT_MM, DEGREES = 20.0, 30.0
IN_PLANE_MM, SLICE_MM = (1.0, 2.5), 6.0
MARGIN_MM = 20.0
"""Around the brain, in the field of view."""
POINT_MM = 1.5
"""At most so far apart are the points whose mean a voxel is."""
AIM_MM, LOST_MM = 1.5, 5.0
ORIENTATIONS = Rotation.create_group("O")
COLUMNS: tuple[str, ...] = (
    "trial",
    "cohort",
    "subject",
    "fixed",
    "moving",
    "degrees",
    "spacing_mm",
    "error_mm",
    "segmentation_mm",
    "seconds",
    "failure",
)


@dataclass(frozen=True)
class Config:
    """Which trials are run."""

    data: Path
    """Folder that holds the cohorts."""
    trials: int = 200
    """How many."""
    out: Path = Path("pose.tsv")
    """Where a row for each trial is appended."""
    only: tuple[int, ...] = ()
    """Run these trials alone."""
    keep: Path | None = None
    """Folder where the images in a pose stay."""


def main(config: Config) -> None:
    """Run the trials that are missing, and print what all of them reached."""
    done = {int(row["trial"]) for row in rows_of(config.out)}
    for number in config.only or range(config.trials):
        if number in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = trial(number, config.data, config.keep or Path(folder))
        new = not config.out.is_file()
        with config.out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(*row.values(), flush=True)
    report(rows_of(config.out))


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it does not exist yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def trial(number: int, data: Path, folder: Path) -> dict[str, Any]:
    """The row of one trial."""
    random = np.random.default_rng([number, 0])
    cohort, fixed, moving = KINDS[number % len(KINDS)]
    names = test_subjects(data / cohort)
    name = names[number // len(KINDS) % len(names)]
    stem = data / cohort / name / name
    labels = read_labels(Path(f"{stem}_dseg.nii.gz"))
    inside = np.argwhere((labels.array > 0) & (labels.array < HEAD))
    brain = affine_points(labels.affine, inside[:: max(len(inside) // 20_000, 1)].astype(float))
    pose = random_pose(brain.mean(axis=0), random)
    spacing_mm = random_spacing_mm(random)
    image = read_image(Path(f"{stem}_{moving}.nii.gz"))
    path = folder / f"{number:03d}_{moving}.nii.gz"
    write(path, posed(image, pose, brain, spacing_mm, cut_out="heads" not in cohort))
    row = {
        "trial": number,
        "cohort": cohort,
        "subject": name,
        "fixed": fixed,
        "moving": moving,
        "degrees": round(np.degrees(Rotation.from_matrix(pose[:3, :3]).magnitude())),
        "spacing_mm": " ".join(f"{mm:.1f}" for mm in spacing_mm),
    }
    start = time.perf_counter()
    config = RegisterConfig(transform="affine")
    try:
        result = register_pair(
            Path(f"{stem}_{fixed}.nii.gz"), path, config, Clock(), say=lambda line: None
        )
    except InputError as error:
        return {**row, "failure": str(error).replace(str(path), path.name)}
    overlap = overlap_between(result.fixed, result.moving)
    return {
        **row,
        "error_mm": f"{distance_mm(result.affine, pose, brain):.3f}",
        "segmentation_mm": ""
        if overlap is None
        else f"{distance_mm(overlap.start, pose, brain):.3f}",
        "seconds": f"{time.perf_counter() - start:.1f}",
    }


def test_subjects(cohort: Path) -> list[str]:
    """The subjects of a cohort's test split."""
    rows = rows_of(cohort / "participants.tsv")
    return [row["participant_id"] for row in rows if row["split"] == "test"]


def random_pose(
    centre_mm: Float[np.ndarray, "3"], random: np.random.Generator
) -> Float[np.ndarray, "4 4"]:
    """The map from the scanner's millimetres to the image's: orientation, turn and shift."""
    axis, direction = (v / np.linalg.norm(v) for v in random.normal(size=(2, 3)))
    turn = Rotation.from_rotvec(np.radians(random.uniform(0, DEGREES)) * axis)
    orientation = ORIENTATIONS[int(random.integers(len(ORIENTATIONS)))]
    pose = np.eye(4)
    pose[:3, :3] = (orientation * turn).as_matrix()
    pose[:3, 3] = centre_mm - pose[:3, :3] @ (random.uniform(0, SHIFT_MM) * direction)
    return pose


def random_spacing_mm(random: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Square voxels in the plane, and slices at least as thick, across any axis."""
    in_plane = random.uniform(*IN_PLANE_MM)
    spacing_mm = np.full(3, in_plane)
    spacing_mm[random.integers(3)] = random.uniform(in_plane, SLICE_MM)
    return spacing_mm


def posed(
    image: Volume,
    pose: Float[np.ndarray, "4 4"],
    brain: Float[np.ndarray, "n 3"],
    spacing_mm: Float[np.ndarray, "3"],
    *,
    cut_out: bool,
) -> Volume:
    """An image as a scanner sees it in a pose, each voxel the mean of points within it.

    The field of view lies about the scanner's origin and holds the brain with a margin. A brain
    that was cut out keeps its edge: voxels of which it fills less than half are 0.
    """
    reach = np.abs(affine_points(np.linalg.inv(pose), brain)).max(axis=0) + MARGIN_MM
    shape = np.ceil(2 * reach / spacing_mm).astype(int)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -spacing_mm * (shape - 1) / 2
    array = means(image.array, image.affine, pose @ affine, shape, spacing_mm)
    if cut_out:
        filled = means(image.array > 0, image.affine, pose @ affine, shape, spacing_mm)
        array = np.where(filled > 0.5, np.maximum(array, 1), 0)
    return Volume(array.astype(np.float32), affine)


def means(
    array: np.ndarray,
    affine: Float[np.ndarray, "4 4"],
    grid: Float[np.ndarray, "4 4"],
    shape: np.ndarray,
    spacing_mm: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "x y z"]:
    """The mean of an array over each voxel of a grid in its space; 0 outside the array."""
    parts = np.ceil(spacing_mm / POINT_MM).astype(int)
    finer = np.diag([*(1 / parts), 1.0])
    finer[:3, 3] = 0.5 / parts - 0.5
    to_voxels: Any = np.linalg.inv(affine) @ grid @ finer
    values = affine_transform(
        array.astype(np.float32),
        to_voxels[:3, :3],
        to_voxels[:3, 3],
        output_shape=tuple(shape * parts),
        order=1,
    )
    split = [n for pair in zip(shape, parts, strict=True) for n in pair]
    return values.reshape(split).mean(axis=(1, 3, 5))


def distance_mm(
    affine: Float[np.ndarray, "4 4"],
    pose: Float[np.ndarray, "4 4"],
    brain: Float[np.ndarray, "n 3"],
) -> float:
    """How far an affine takes points of the brain from where the pose has them, in the mean."""
    there = affine_points(affine, brain) - affine_points(np.linalg.inv(pose), brain)
    return float(np.linalg.norm(there, axis=1).mean())


def report(rows: list[dict[str, str]]) -> None:
    """Print the errors of all trials, and of each cohort."""
    groups: dict[str, list[dict[str, str]]] = {"all": rows}
    for row in rows:
        groups.setdefault(f"{row['cohort']}, {row['fixed']} ← {row['moving']}", []).append(row)
    for name, members in groups.items():
        found = [row for row in members if not row["failure"]]
        for column in ("error_mm", "segmentation_mm"):
            errors = np.array([float(row[column]) for row in found if row[column]])
            print(
                f"{name}, {column}: mean {errors.mean():.2f}, median {np.median(errors):.2f}, "
                f"worst {errors.max():.2f}; {(errors > AIM_MM).sum()} above {AIM_MM:g} mm, "
                f"{(errors > LOST_MM).sum()} above {LOST_MM:g} mm, of {len(members)}"
            )
        print(f"{name}: {len(members) - len(found)} refused")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
