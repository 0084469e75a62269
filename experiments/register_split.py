"""`jaxreg register` on the labelled neighbouring pairs of a split: Dice, folds, seconds.

    python experiments/register_split.py --data=ixi --split=test --refine=0

Every flag that is not given is the command's own default: the network that comes with jaxreg, its
λ, passes and refinement, the linear start of --init auto. Dice is over the cohort's structures,
nearest neighbour, on the fixed person's grid.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402

from jaxreg.data.cohort import neighbour_pairs, read_cohort  # noqa: E402
from jaxreg.data.volume import read_labels  # noqa: E402
from jaxreg.evaluation import metrics  # noqa: E402
from jaxreg.registration.outputs import make_outputs  # noqa: E402
from jaxreg.registration.register import Clock, register_pair  # noqa: E402
from jaxreg.registration.settings import RegisterConfig  # noqa: E402
from jaxreg.registration.summary import metrics_of  # noqa: E402


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
    out: Path | None = None
    """Where a row of JSON for each pair is appended."""
    only: tuple[str, ...] = field(default_factory=tuple)
    """FIXED:MOVING pairs instead of the neighbours."""


def main(config: Config) -> None:
    """Print a row for each pair, and the means."""
    cohort = read_cohort(config.data)
    rows = []
    for fixed, moving in pairs_of(config, cohort):
        rows.append(register(config, cohort, fixed, moving))
        print(json.dumps(rows[-1]), flush=True)
        if config.out is not None:
            with config.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    for name in ("none", "dice", "folds_percent", "seconds"):
        print(f"{name}: mean {np.mean([row[name] for row in rows]):.4f} over {len(rows)} pairs")


def pairs_of(config: Config, cohort) -> list[tuple[str, str]]:
    """The pairs that are registered: those asked for, or the neighbours with labels."""
    if config.only:
        return [(f, m) for f, m in (pair.split(":") for pair in config.only)]
    first, second = config.domains.split(",")
    people = [
        [p for p in cohort.members(config.split, d) if cohort.file(p, "dseg").is_file()]
        for d in (first, second)
    ]
    return neighbour_pairs(*people)


def register(config: Config, cohort, fixed: str, moving: str) -> dict:
    """One pair: Dice before and after over the structures of both, folds in %, seconds."""
    first, second = config.domains.split(",")
    settings = RegisterConfig(
        model=config.model,
        lam=config.lam,
        refine=config.refine,
        passes=config.passes,
        init=config.init,
        moving_labels=cohort.file(moving, "dseg"),
    )
    images = cohort.file(fixed, first), cohort.file(moving, second)
    start = time.perf_counter()
    result = register_pair(*images, settings, Clock(), say=lambda line: None)
    outputs = make_outputs(result)
    seconds = time.perf_counter() - start
    labels = [jnp.asarray(read_labels(cohort.file(p, "dseg")).array) for p in (fixed, moving)]
    assert outputs.moved_labels is not None
    moved = jnp.asarray(outputs.moved_labels.astype(np.int32))
    structures = jnp.asarray(sorted(cohort.structures), jnp.int32)
    both = np.asarray(metrics.present(labels[0], labels[1], structures))
    none, dice = (
        float(np.asarray(metrics.dice(labels[0], other, structures))[both].mean())
        for other in (labels[1], moved)
    )
    return {
        "fixed": fixed,
        "moving": moving,
        "structures": int(both.sum()),
        "none": round(none, 4),
        "dice": round(dice, 4),
        "folds_percent": round(metrics_of(result, outputs)["folds_percent"], 5),
        "seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
