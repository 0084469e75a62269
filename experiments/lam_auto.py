"""How well `--lam auto` chooses: its Dice beside that of the best fixed λ, on a cohort's split.

    python experiments/lam_auto.py --model runs/lncc --data COHORT [--split val] [--pairs 10]

Each pair is registered at every λ on the cohort's own grid (it is affinely aligned already). The
rule sees similarity and folds alone; Dice is the judge. It stays if the mean of its choices lies
within 0.005 of the best fixed λ's. Other shares of the similarity gain are printed beside it.
"""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import tyro

from jaxreg import runtime
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.cohort import neighbour_pairs, read_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.evaluation import metrics
from jaxreg.pair import Pair
from jaxreg.registration.deformable import lambda_selection
from jaxreg.registration.deformable.deformation import deformations, no_deformation
from jaxreg.registration.deformable.method import load_method, routed
from jaxreg.spatial import warp

SHARES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Config:
    """The measurement of the rule of `--lam auto`."""

    data: Path
    """Cohort folder."""
    model: Path | None = None
    """Registration run; without it, direct optimisation."""
    split: str = "val"
    """Split whose neighbouring pairs are registered."""
    pairs: int = 10
    """Pairs at most."""
    steps: int | None = None
    """Steps of direct optimisation; by default those of `register --optimize-only`."""


def main(config: Config) -> None:
    """Print Dice against λ, the rule's choices and what they cost."""
    settings = RegisterConfig(
        model=config.model, optimize_only=config.model is None, steps=config.steps, lam="auto"
    )
    method = routed(load_method(settings), settings, ("T1w", "T2w"))[0]
    domains = method.domains or ("T1w", "T2w")
    cohort = read_cohort(config.data)
    subjects = (cohort.members(config.split, d) for d in domains)
    pairs = neighbour_pairs(*subjects)[: config.pairs]
    needed = [(p, k) for f, m in pairs for p, k in ((f, domains[0]), (m, domains[1]))]
    labels = [(p, "dseg") for pair in pairs for p in pair]
    volumes = Volumes(cohort, [*needed, *labels])
    structures = jnp.asarray(sorted(cohort.structures), jnp.int32)
    curves, befores, dice = [], [], []
    for fixed_id, moving_id in pairs:
        f, m = volumes.scan(fixed_id, domains[0]), volumes.scan(moving_id, domains[1])
        pair = Pair(*(jnp.asarray(a) for a in (f.image, m.image, f.mask, m.mask)))
        curve = deformations(method, pair, lambda_selection.LAMS)
        fixed_labels, moving_labels = (
            jnp.asarray(volumes.labels(p)) for p in (fixed_id, moving_id)
        )
        both = metrics.present(fixed_labels, moving_labels, structures)
        row = []
        for point in curve:
            moved = warp(moving_labels[..., None], jnp.asarray(point.displacement), order=0)[..., 0]
            row.append(float(jnp.mean(metrics.dice(fixed_labels, moved, structures), where=both)))
        curves.append([p._replace(displacement=None, inverse=None, moved=None) for p in curve])
        befores.append(no_deformation(method, pair).similarity)
        dice.append(row)
        print(fixed_id, moving_id, np.round(row, 4).tolist(), flush=True)
    table = np.array(dice)
    mean = table.mean(axis=0)
    for lam, value in zip(lambda_selection.LAMS, mean, strict=True):
        print(f"λ {lam:.1f}  Dice {value:.4f}")
    best = float(mean.max())
    print(f"best fixed λ {lambda_selection.LAMS[int(mean.argmax())]}: {best:.4f}")
    print(f"best λ of each pair (an upper bound): {table.max(axis=1).mean():.4f}")
    for share in SHARES:
        chosen = [
            lambda_selection.choose(b, c, share=share).lam
            for b, c in zip(befores, curves, strict=True)
        ]
        values = [
            row[lambda_selection.LAMS.index(lam)] for row, lam in zip(dice, chosen, strict=True)
        ]
        mark = " (the rule)" if share == lambda_selection.SHARE else ""
        print(
            f"share {share:.2f}: Dice {np.mean(values):.4f}, {np.mean(values) - best:+.4f} against "
            f"the best fixed λ; chosen {chosen}{mark}"
        )


if __name__ == "__main__":
    runtime.prepare()
    main(tyro.cli(Config))
