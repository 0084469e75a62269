"""`jaxreg segment` on the images of a split: Dice of the brain mask and of the structures.

    python experiments/segment_split.py --data=heads/ixi --domain=T1w

`DATA` has `participants.tsv` (columns participant_id and split) and a folder for each subject with
the image and `dseg`, FreeSurfer's numbers, which may lie on another grid and name the head around
the brain from 500 on. Where the labels are those of a whole head, the brain is what they name below
500. Labels are read at the nearest voxel, and scores are taken on the image's own grid.

`--low-field` makes a scan of 64 mT of each image first, as `simulated_scans.py` describes it.

`--masks=FOLDER` scores another tool's masks beside those of `jaxreg segment`: FOLDER has a file for
each image, with the image's name. Images without one are left out. Tools differ in how much fluid
around the brain they count as brain, so the Dice is also given of either mask after it was grown or
shrunk evenly until it has the volume of the true one.
"""

import csv
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import tyro  # noqa: E402
from scipy.ndimage import distance_transform_edt, gaussian_filter  # noqa: E402
from simulated_scans import HEAD, low_field  # noqa: E402

from jaxreg.data.prepare.freesurfer_labels import STRUCTURES, merge_parcels  # noqa: E402
from jaxreg.geometry.grid import Grid  # noqa: E402
from jaxreg.geometry.transforms import resample  # noqa: E402
from jaxreg.io.headers import read_header  # noqa: E402
from jaxreg.io.images import read_image, read_labels, read_mask, write  # noqa: E402
from jaxreg.segmentation.files import segment_scan  # noqa: E402


@dataclass(frozen=True)
class Config:
    """Which images are segmented."""

    data: Path
    """Folder with participants.tsv and a folder for each subject."""
    split: str = "test"
    """Split whose subjects are taken."""
    domain: str = "T1w"
    """Contrast: the last part of the images' names."""
    segmentation: Path | None = None
    """Segmentation networks; default the bundled ones."""
    low_field: bool = False
    """Segment simulated scans of 64 mT instead of the images."""
    masks: Path | None = None
    """Folder of masks that another tool made of the images."""


def main(config: Config) -> None:
    """Print a row for each image, and the means."""
    with (config.data / "participants.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    scores = []
    random = np.random.default_rng(0)
    for name in [row["participant_id"] for row in rows if row["split"] == config.split]:
        stem = config.data / name / name
        image, labels = (Path(f"{stem}_{kind}.nii.gz") for kind in (config.domain, "dseg"))
        other = None if config.masks is None else config.masks / image.name
        if not all(path is None or path.is_file() for path in (image, labels, other)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            if config.low_field:
                scan = low_field(read_image(image), read_labels(labels), config.domain, random)
                image = Path(folder) / image.name
                write(image, scan)
            scores.append({"name": name, **score(image, labels, other, config)})
        print(json.dumps(scores[-1]), flush=True)
    if not scores:
        raise SystemExit(f"{config.data}: no image of the {config.split} split to segment.")
    kinds = [kind for kind, value in scores[0].items() if isinstance(value, float)]
    for kind in kinds:
        values = [row[kind] for row in scores]
        print(f"{kind}: mean {np.mean(values):.4f}, least {np.min(values):.4f}, {len(values)}")


def score(image: Path, labels: Path, other: Path | None, config: Config) -> dict[str, float]:
    """Dice of the mask, mean Dice of the structures that the labels have, and seconds.

    `other` is another tool's mask, whose Dice is given too.
    """
    start = time.perf_counter()
    found = segment_scan(image, networks=config.segmentation)
    seconds = time.perf_counter() - start
    grid = read_header(image).grid
    true = resample(read_labels(labels), lambda points: points, grid, order=0)
    true = np.where(true >= HEAD, 0, true)
    merged = merge_parcels(true)
    each = [dice(found.labels == n, merged == n) for n in STRUCTURES if (merged == n).any()]
    beside = {}
    if other is not None:
        theirs = resample(read_mask(other), lambda points: points, grid, order=0) > 0
        beside = {
            "other": dice(theirs, true > 0),
            "other, true volume": dice(with_volume_of(true > 0, theirs, grid), true > 0),
            "mask, true volume": dice(with_volume_of(true > 0, found.mask, grid), true > 0),
        }
    return {
        **{kind: round(value, 4) for kind, value in beside.items()},
        "mask": round(dice(found.mask, true > 0), 4),
        "structures": round(float(np.mean(each)), 4),
        "counted": len(each),
        "seconds": round(seconds, 2),
    }


def with_volume_of(true: np.ndarray, mask: np.ndarray, grid: Grid) -> np.ndarray:
    """A mask grown or shrunk evenly until it has as many voxels as the true one."""
    outside, inside = (
        np.asarray(distance_transform_edt(part, sampling=grid.spacing_mm)) for part in (~mask, mask)
    )
    spacing_mm = np.array(grid.spacing_mm)
    nearby = gaussian_filter(mask.astype(np.float32), 2 / spacing_mm)  # orders equal distances
    order = outside - inside - 1e-3 * nearby
    grown = np.zeros(mask.shape, bool)
    grown.ravel()[np.argpartition(order, int(true.sum()), axis=None)[: int(true.sum())]] = True
    return grown


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """2·|A ∩ B| / (|A| + |B|)."""
    return 2 * float((one & other).sum()) / max(float(one.sum() + other.sum()), 1.0)


if __name__ == "__main__":
    main(tyro.cli(Config))
