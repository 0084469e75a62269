"""Other registration tools on the labelled neighbouring pairs of a split: Dice, folds, seconds.

    python experiments/other_tools.py --data=real --tools=ants,fireants

The tools are the engines of `jaxreg compare`, each in a process of its own. They register the pairs
as they lie in the cohort's common space, so no linear start of jaxreg helps them. Dice is over the
cohort's structures, nearest neighbour, on the fixed image's grid, which is the moving one's, too.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import tyro
from register_split import overlap
from scipy.ndimage import map_coordinates

from jaxreg.data.cohort import Cohort, read_cohort
from jaxreg.evaluation import metrics
from jaxreg.evaluation.evaluate import split_pairs
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import resample_by
from jaxreg.io.images import read_labels


@dataclass(frozen=True)
class Config:
    """Which pairs, and by which tools."""

    data: Path
    """Folder of a prepared cohort."""
    tools: str
    """TOOL[,TOOL...]: some of ants, greedy, elastix, convexadam, fireants, syntx."""
    split: str = "test"
    """Split whose neighbouring pairs are registered."""
    domains: str = "T1w,T2w"
    """Contrasts of the fixed and the moving image."""


def main() -> None:
    """Print a line for each pair and tool, and the means."""
    config = tyro.cli(Config, description=__doc__)
    cohort = read_cohort(config.data)
    fixed, moving = config.domains.split(",")
    pairs = split_pairs(cohort, config.split, (fixed, moving), every=False)
    for tool in config.tools.split(","):
        rows = []
        for one, other in pairs:
            rows.append(registered(cohort, (one, fixed), (other, moving), tool))
            print(f"{tool} {one} {other}", *(f"{value:.4f}" for value in rows[-1]), flush=True)
        before, after, smooth, folds, seconds = np.mean(rows, axis=0)
        print(
            f"{tool}: {len(rows)} pairs, Dice {after:.4f} (none {before:.4f}; by interpolation of "
            f"labels {smooth:.4f}), folds {folds:.4f} %, {seconds:.0f} s"
        )


def registered(
    cohort: Cohort, fixed: tuple[str, str], moving: tuple[str, str], tool: str
) -> tuple[float, float, float, float, float]:
    """Dice before and after, the same by interpolated labels, % of folds, seconds of one pair.

    Labels are interpolated as `jaxreg apply --interpolation label` does; folds are those in the
    fixed brain.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for role, (subject, domain) in (("fixed", fixed), ("moving", moving)):
            (folder / f"{role}.nii.gz").write_bytes(cohort.file(subject, domain).read_bytes())
        module = "jaxreg.registration.compare_tools.external_tools"
        run = subprocess.run(
            [sys.executable, "-m", module, tool, name], capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise RuntimeError(f"{tool} ended with {run.returncode}:\n{run.stderr[-2000:]}")
        displacement = np.load(folder / "displacement.npy")
        seconds = json.loads((folder / "used.json").read_text(encoding="utf-8"))["seconds"]
    lies, other = (read_labels(cohort.file(p, "dseg")).array for p in (fixed[0], moving[0]))
    points = np.moveaxis(displacement, -1, 0) + np.indices(lies.shape)
    moved = map_coordinates(other, points, order=0)
    in_voxels = Field(displacement, np.eye(4))
    smooth = resample_by(Volume(other, np.eye(4)), in_voxels, order=0, smooth_labels=True)
    structures = jnp.asarray(sorted(cohort.structures), jnp.int32)
    dice = [overlap(lies, labels, structures)[0] for labels in (other, moved, smooth)]
    folds = metrics.folds_percent(jnp.asarray(displacement), jnp.asarray(lies > 0))
    return dice[0], dice[1], dice[2], float(folds), seconds


if __name__ == "__main__":
    main()
