"""`jaxreg segment` on the images of a split: Dice of the brain mask and of the structures.

    python experiments/segment_split.py --data=heads/ixi --domain=T1w

`DATA` has `participants.tsv` (columns participant_id and split) and a folder for each subject with
the image and `dseg`, FreeSurfer's numbers, which may lie on another grid and name the head around
the brain from 500 on. Where the labels are those of a whole head, the brain is what they name below
500. Labels are read at the nearest voxel, and scores are taken on the image's own grid.
"""

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import tyro  # noqa: E402

from jaxreg.data.prepare.freesurfer_labels import STRUCTURES, merge_parcels  # noqa: E402
from jaxreg.geometry.transforms import resample  # noqa: E402
from jaxreg.io.headers import read_header  # noqa: E402
from jaxreg.io.images import read_labels  # noqa: E402
from jaxreg.segmentation.files import segment_scan  # noqa: E402

HEAD = 500
"""The first number of the classes around the brain."""


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


def main(config: Config) -> None:
    """Print a row for each image, and the means."""
    with (config.data / "participants.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    scores = []
    for name in [row["participant_id"] for row in rows if row["split"] == config.split]:
        stem = config.data / name / name
        image, labels = (Path(f"{stem}_{kind}.nii.gz") for kind in (config.domain, "dseg"))
        if image.is_file() and labels.is_file():
            scores.append({"name": name, **score(image, labels, config)})
            print(json.dumps(scores[-1]), flush=True)
    for kind in ("mask", "structures", "seconds"):
        values = [row[kind] for row in scores]
        print(f"{kind}: mean {np.mean(values):.4f}, least {np.min(values):.4f}, {len(values)}")


def score(image: Path, labels: Path, config: Config) -> dict[str, float]:
    """Dice of the mask, mean Dice of the structures that the labels have, and seconds."""
    start = time.perf_counter()
    found = segment_scan(image, networks=config.segmentation)
    seconds = time.perf_counter() - start
    grid = read_header(image).grid
    true = resample(read_labels(labels), lambda points: points, grid, order=0)
    true = np.where(true >= HEAD, 0, true)
    merged = merge_parcels(true)
    each = [dice(found.labels == n, merged == n) for n in STRUCTURES if (merged == n).any()]
    return {
        "mask": round(dice(found.mask, true > 0), 4),
        "structures": round(float(np.mean(each)), 4),
        "counted": len(each),
        "seconds": round(seconds, 2),
    }


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """2·|A ∩ B| / (|A| + |B|)."""
    return 2 * float((one & other).sum()) / max(float(one.sum() + other.sum()), 1.0)


if __name__ == "__main__":
    main(tyro.cli(Config))
