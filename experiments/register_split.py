"""`jaxreg register` on the labelled neighbouring pairs of a split: Dice, folds, seconds.

    python experiments/register_split.py --data=ixi --split=test --refine=0

Every flag that is not given is the command's own default: the network that comes with jaxreg, its
λ, passes and refinement, the linear start of --init auto. Dice is over the cohort's structures,
nearest neighbour, on the fixed image's grid. With --turned=15 both images are turned, shifted and
resampled as if they came from a scanner, which knows nothing of a common space. Dice of `GROUPS`
stands beside that of the structures, for comparison with papers that report tissue groups, and
`dice_label` is that of labels carried by `--interpolation label` of `jaxreg apply`.
"""

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxreg import runtime

runtime.prepare()

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402
from scipy.ndimage import affine_transform  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from jaxreg.configuration.registration import Extraction, RegisterConfig  # noqa: E402
from jaxreg.data.cohort import read_cohort  # noqa: E402
from jaxreg.evaluation import metrics  # noqa: E402
from jaxreg.evaluation.evaluate import split_pairs  # noqa: E402
from jaxreg.geometry.grid import Volume  # noqa: E402
from jaxreg.geometry.transforms import affine_points, resample_by  # noqa: E402
from jaxreg.io.images import read_image, read_labels, write  # noqa: E402
from jaxreg.registration.clock import Clock  # noqa: E402
from jaxreg.registration.output.estimate import estimated_dice  # noqa: E402
from jaxreg.registration.output.files import make_outputs  # noqa: E402
from jaxreg.registration.output.metrics import metrics_of  # noqa: E402
from jaxreg.registration.register import register_pair  # noqa: E402

GROUPS = {
    "cortex": (3, 42),
    "white matter": (2, 41),
    "deep grey matter": (10, 11, 12, 13, 17, 18, 26, 28, 49, 50, 51, 52, 53, 54, 58, 60),
    "ventricles": (4, 5, 14, 15, 43, 44),
    "cerebellum and brain stem": (7, 8, 16, 46, 47),
}
"""FreeSurfer's numbers of five groups of structures, left and right together."""


@dataclass(frozen=True)
class Config:
    """Which pairs, and how they are registered."""

    data: Path
    """Folder of a prepared cohort."""
    split: str = "test"
    """Split whose neighbouring pairs are registered."""
    domains: str = "T1w,T2w"
    """Contrasts of the fixed and the moving image."""
    model: Path | None = None
    """Network; default the one that comes with jaxreg."""
    lam: float | None = None
    """λ; default the model's."""
    refine: int | None = None
    """Steps of refinement; default the model's."""
    passes: int | None = None
    """Passes of the network; default the model's."""
    init: str | None = None
    """Linear start; default auto."""
    extract: Extraction = "auto"
    """never: without segmentation."""
    label_weight: float | None = None
    """Weight of the segmentations' overlap; default that of the command."""
    turned: float = 0.0
    """Turn either image by up to so many degrees about each axis, and shift it by as many mm."""
    out: Path | None = None
    """Where a row of JSON for each pair is appended."""
    only: tuple[str, ...] = field(default_factory=tuple)
    """FIXED:MOVING pairs instead of the neighbours."""


def main(config: Config) -> None:
    """Print a row for each pair, and the means."""
    cohort = read_cohort(config.data)
    rows = []
    for number, (fixed, moving) in enumerate(pairs_of(config, cohort)):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(register(config, cohort, fixed, moving, Path(folder), number))
        print(json.dumps(rows[-1]), flush=True)
        if config.out is not None:
            with config.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    names = ("none", "dice", "dice_groups", "dice_label", "folds_percent", "sdlogj", "seconds")
    for name in names:
        print(f"{name}: mean {np.mean([row[name] for row in rows]):.4f} over {len(rows)} pairs")


def pairs_of(config: Config, cohort) -> list[tuple[str, str]]:
    """The pairs that are registered: those asked for, or the neighbours with labels."""
    if config.only:
        return [(f, m) for f, m in (pair.split(":") for pair in config.only)]
    first, second = config.domains.split(",")
    return split_pairs(cohort, config.split, (first, second), every=False)


def register(config: Config, cohort, fixed: str, moving: str, folder: Path, number: int) -> dict:
    """One pair: Dice before and after over the structures of both, folds in %, seconds."""
    first, second = config.domains.split(",")
    images = [cohort.file(fixed, first), cohort.file(moving, second)]
    segmentations = [cohort.file(fixed, "dseg"), cohort.file(moving, "dseg")]
    structures = jnp.asarray(sorted(cohort.structures), jnp.int32)
    lying = [read_labels(path).array for path in segmentations]
    none, _ = overlap(lying[0], lying[1], structures)
    if config.turned > 0:
        for k, role in enumerate(("fixed", "moving")):
            paths = images[k], segmentations[k], folder / role
            images[k], segmentations[k] = as_scanned(*paths, 2 * number + k, config.turned)
    settings = RegisterConfig(
        model=config.model,
        lam=config.lam,
        refine=config.refine,
        passes=config.passes,
        init=config.init,
        extract=config.extract,
        label_weight=config.label_weight,
        moving_labels=segmentations[1],
    )
    start = time.perf_counter()
    result = register_pair(images[0], images[1], settings, Clock(), say=lambda line: None)
    outputs = make_outputs(result)
    seconds = time.perf_counter() - start
    assert outputs.moved_labels is not None
    lies = read_labels(segmentations[0]).array
    dice, both = overlap(lies, outputs.moved_labels, structures)
    groups = group_of(lies), group_of(outputs.moved_labels)
    dice_groups, _ = overlap(groups[0], groups[1], jnp.arange(1, len(GROUPS) + 1))
    assert result.moving.labels is not None
    smooth = resample_by(result.moving.labels, outputs.warp, order=0, smooth_labels=True)
    dice_label, _ = overlap(lies, smooth, structures)
    estimate = estimated_dice(result)
    numbers = metrics_of(result, outputs, estimate)
    return {
        "fixed": fixed,
        "moving": moving,
        "structures": both,
        "none": round(none, 4),
        "dice": round(dice, 4),
        "dice_groups": round(dice_groups, 4),
        "dice_label": round(dice_label, 4),
        "estimated": None if estimate is None else round(estimate.mean, 4),
        "folds_percent": round(numbers["folds_percent"], 5),
        "sdlogj": round(numbers["sdlogj"], 4),
        "seconds": round(seconds, 2),
    }


def overlap(fixed: np.ndarray, moved: np.ndarray, structures) -> tuple[float, int]:
    """Mean Dice over the structures that both have, and how many these are."""
    one, other = (jnp.asarray(labels.astype(np.int32)) for labels in (fixed, moved))
    both = np.asarray(metrics.present(one, other, structures))
    dice = np.asarray(metrics.dice(one, other, structures))[both]
    return float(dice.mean()), int(both.sum())


def group_of(labels: np.ndarray) -> np.ndarray:
    """The number of each voxel's group in `GROUPS`, from 1; 0 elsewhere."""
    groups = np.zeros(labels.shape, np.int32)
    for number, members in enumerate(GROUPS.values(), start=1):
        groups[np.isin(labels, members)] = number
    return groups


def as_scanned(
    image: Path, labels: Path, folder: Path, seed: int, turned: float
) -> tuple[Path, Path]:
    """Image (cubic) and labels (nearest) turned and shifted, on a grid of 1 × 1.2 × 1.1 mm."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    pose = np.eye(4)
    angles, pose[:3, 3] = random.uniform(-turned, turned, (2, 3))
    pose[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    spacing_mm = np.array([1.0, 1.2, 1.1])
    shape = (np.array([210, 230, 210]) / spacing_mm).astype(int)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(shape - 1) / 2 * spacing_mm
    paths = []
    for path, order in ((image, 3), (labels, 0)):
        there = read_image(path) if order else read_labels(path)
        centre = np.eye(4)
        centre[:3, 3] = -affine_points(there.affine, (np.array([there.array.shape]) - 1) / 2)[0]
        to_voxels: Any = np.linalg.inv(pose @ centre @ there.affine) @ affine
        place = to_voxels[:3, :3], to_voxels[:3, 3], tuple(shape)
        array = affine_transform(there.array, *place, order=order)
        if order:
            inside = affine_transform((there.array > 0).astype(np.float32), *place, order=1) > 0.5
            array = np.where(inside, np.maximum(array, 1), 0)
        paths.append(folder / path.name)
        write(paths[-1], Volume(array, affine))
    return paths[0], paths[1]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
