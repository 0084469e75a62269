"""jaxreg and other tools on one pair, from the same affine start: what `jaxreg compare` does."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import InputError, require_choice
from jaxreg.evaluation import metrics
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import resample_by
from jaxreg.io.images import write
from jaxreg.losses.objective import moved_by
from jaxreg.pair import Pair
from jaxreg.registration.clock import Clock
from jaxreg.registration.compare_tools.external_tools import ENGINES, missing
from jaxreg.registration.deformable.deformation import deformations, local_correlation
from jaxreg.registration.deformable.grid import in_millimetres
from jaxreg.registration.output.files import written_map
from jaxreg.registration.output.metrics import dice_of
from jaxreg.registration.register import Registration, register_pair
from jaxreg.runtime import peak_gigabytes


class Row(NamedTuple):
    """One tool: Dice (NaN without labels), local cc², % of folds, seconds, GB; NaN if it failed."""

    name: str
    dice: float
    similarity: float
    folds_percent: float
    seconds: float
    gigabytes: float
    note: str


def compare_files(
    fixed: Path,
    moving: Path,
    engines: tuple[str, ...],
    config: RegisterConfig,
    *,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Register a pair by jaxreg as `config` says, and by each engine in a process of its own.

    All start from the same affine on the same grid (jaxreg's network grid). Similarity and folds
    are measured there, Dice on the fixed image's grid. Engines that are not installed are named and
    skipped.

    Raises:
        InputError: an unknown engine, or whatever `register_pair` raises.
    """
    for name in engines or [""]:
        require_choice("with", name, tuple(ENGINES), several=True)
    if config.transform != "deformable" or config.lam == "auto":
        raise InputError("compare: expected a deformable registration at one λ.")
    result = register_pair(fixed, moving, config, Clock(), say=say)
    zero = np.zeros((*result.grid.shape, 3), np.float32)
    rows = [score("affine alone", result, zero)]
    start = time.perf_counter()  # again: now the programs are compiled and the model is loaded
    chosen = deformations(result.method, result.pair, [result.chosen.lam])[0]
    seconds = time.perf_counter() - start
    mine = score("jaxreg", result, chosen.displacement)
    rows.append(mine._replace(seconds=seconds, gigabytes=peak_gigabytes()))
    for name in engines:
        lacking = missing(name)
        if lacking:
            say(f"{name}: not installed ({lacking}), skipped")
            continue
        say(f"running {name}")
        rows.append(run_engine(name, result))
    return rows


def run_engine(name: str, result: Registration) -> Row:
    """One engine in its own process; a row that says so where it fails."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for role, image in (("fixed", result.pair.fixed), ("moving", result.pair.moving)):
            array = np.asarray(image)[..., 0] * np.float32(255)
            write(folder / f"{role}.nii.gz", Volume(array, result.grid.affine))
        command = [
            sys.executable,
            "-m",
            "jaxreg.registration.compare_tools.external_tools",
            name,
            place,
        ]
        threads = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(os.cpu_count() or 1)}
        done = subprocess.run(
            command, env={**os.environ, **threads}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not (folder / "used.json").is_file():
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            nan = float("nan")
            note = f"failed: {said[-1] if said else done.returncode}"
            return Row(name, nan, nan, nan, nan, nan, note)
        used = json.loads((folder / "used.json").read_text(encoding="utf-8"))
        displacement = np.load(folder / "displacement.npy")
    row = score(name, result, displacement)
    return row._replace(seconds=used["seconds"], gigabytes=used["gigabytes"])


def score(name: str, result: Registration, displacement: np.ndarray) -> Row:
    """The numbers of a displacement (voxels of the network grid); seconds and memory are 0.

    Dice is that of `register`: the labels are moved by the whole map in one step, onto the fixed
    image's own grid.
    """
    similarity, folds = _scores(result.pair, jnp.asarray(displacement, jnp.float32))
    dice = float("nan")
    fixed, moving = result.fixed.labels, result.moving.labels
    if fixed is not None and moving is not None:
        chain = [in_millimetres(displacement, result.grid), result.affine]
        grid = result.fixed.header.grid
        moved = resample_by(moving, written_map(chain, grid), order=0)
        dice = dice_of(fixed, moving, moved, grid)
    return Row(name, dice, float(similarity), float(folds), 0.0, 0.0, "")


@jax.jit
def _scores(pair: Pair, displacement: Float[Array, "x y z 3"]):
    config = ObjectiveConfig(loss="lncc")
    moved, masks = moved_by(pair, displacement, config)
    similarity = local_correlation(pair, moved, masks)
    return similarity, metrics.folds_percent(displacement, pair.fixed_mask)


def table(rows: list[Row]) -> str:
    """The comparison as aligned text."""
    head = f"{'tool':14}{'Dice':>8}{'cc²':>8}{'folds %':>10}{'seconds':>9}{'GB':>7}"
    lines = [head]
    for row in rows:
        numbers = (
            f"{row.dice:8.4f}{row.similarity:8.4f}{row.folds_percent:10.4f}"
            f"{row.seconds:9.1f}{row.gigabytes:7.2f}"
        )
        lines.append(f"{row.name:14}{row.note or numbers}")
    return "\n".join(lines)
