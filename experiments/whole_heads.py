"""`jaxreg register` on whole heads, as they come and with the true brain masks.

    python experiments/whole_heads.py --fixed=heads/ixi --moving=heads/labels

The first nine T1w heads of the fixed cohort's test split are registered with the T2w heads of the
moving cohort's, which take turns. Labels only score: Dice of the structures of both.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxreg import runtime

runtime.prepare()

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402
from register_split import overlap  # noqa: E402

from jaxreg.configuration.registration import RegisterConfig  # noqa: E402
from jaxreg.data.cohort import Cohort, read_cohort  # noqa: E402
from jaxreg.data.label_codes import NUMBERS, REST, encode  # noqa: E402
from jaxreg.geometry.transforms import resample  # noqa: E402
from jaxreg.io.headers import read_header  # noqa: E402
from jaxreg.io.images import read_labels, reordered, write_like  # noqa: E402
from jaxreg.registration.clock import Clock  # noqa: E402
from jaxreg.registration.output.estimate import estimated_dice  # noqa: E402
from jaxreg.registration.output.files import make_outputs  # noqa: E402
from jaxreg.registration.register import register_pair  # noqa: E402

STRUCTURES = jnp.asarray([number for number in NUMBERS[:REST] if number > 0], jnp.int32)


@dataclass(frozen=True)
class Config:
    """Which cohorts, and how many pairs."""

    fixed: Path
    """Cohort of the fixed T1w heads."""
    moving: Path
    """Cohort of the moving T2w heads."""
    split: str = "test"
    """Split whose subjects are registered."""
    pairs: int = 9
    """Number of pairs, at most that of the fixed heads."""


class Side(NamedTuple):
    """A head, with its labels and its brain mask on the image's own grid."""

    image: Path
    labels: Path
    mask: Path


def main(config: Config) -> None:
    """Print a row for each pair, and the means."""
    fixed, moving = read_cohort(config.fixed), read_cohort(config.moving)
    heads = sorted(fixed.members(config.split, "T1w"))[: config.pairs]
    others = sorted(moving.members(config.split, "T2w"))
    rows = []
    for number, head in enumerate(heads):
        other = others[number % len(others)]
        with tempfile.TemporaryDirectory() as name:
            sides = (
                side(fixed, head, "T1w", Path(name) / "fixed"),
                side(moving, other, "T2w", Path(name) / "moving"),
            )
            plain, masked = dice_of(*sides, masked=False), dice_of(*sides, masked=True)
        rows.append((*plain, *masked))
        numbers = f"{plain[0]:.4f} (estimated {plain[1]:.4f}), with masks {masked[0]:.4f}"
        print(f"{head} {other}: {numbers}", flush=True)
    dice, estimate, masked, _ = np.mean(rows, axis=0)
    print(f"mean {dice:.4f} (estimated {estimate:.4f}), with masks {masked:.4f}")


def side(cohort: Cohort, name: str, domain: str, folder: Path) -> Side:
    """A subject's image, and its labels and brain written on the grid of that image."""
    folder.mkdir()
    image = cohort.file(name, domain)
    header, labels = read_header(image), read_labels(cohort.file(name, "dseg"))
    array = resample(labels, lambda points: points, header.grid, order=0).astype(np.int32)
    codes = encode(array)
    found = Side(image, folder / "labels.nii.gz", folder / "mask.nii.gz")
    write_like(found.labels, array, header.geometry)
    brain = (codes > 0) & (codes <= REST)
    write_like(found.mask, brain.astype(np.uint8), header.geometry)
    return found


def dice_of(fixed: Side, moving: Side, *, masked: bool) -> tuple[float, float]:
    """(Dice, its estimate) of a pair."""
    settings = RegisterConfig(
        fixed_labels=fixed.labels,
        moving_labels=moving.labels,
        fixed_mask=fixed.mask if masked else None,
        moving_mask=moving.mask if masked else None,
    )
    result = register_pair(fixed.image, moving.image, settings, Clock(), say=lambda line: None)
    moved, estimate = make_outputs(result).moved_labels, estimated_dice(result)
    assert moved is not None and estimate is not None
    lies = reordered(read_labels(fixed.labels), result.fixed.header.grid)
    return overlap(lies, moved, STRUCTURES)[0], estimate.mean


if __name__ == "__main__":
    main(tyro.cli(Config))
