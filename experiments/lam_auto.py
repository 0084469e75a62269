"""How well `--lam auto` chooses: its Dice beside that of the best fixed λ, on a cohort's split.

    python experiments/lam_auto.py --data COHORT [--split val] [--pairs 5]

Each pair is registered at every λ as the command does, segmentations included. The rule sees
similarity and folds alone; Dice is the judge. It stays if the mean of its choices lies within 0.005
of the best fixed λ's. Other shares of the similarity gain are printed beside it.
"""

from dataclasses import dataclass
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import tyro  # noqa: E402
from where_lost import scored  # noqa: E402

from jaxreg.configuration.registration import RegisterConfig  # noqa: E402
from jaxreg.data.cohort import neighbour_pairs, read_cohort  # noqa: E402
from jaxreg.registration.clock import Clock  # noqa: E402
from jaxreg.registration.deformable import lambda_selection  # noqa: E402
from jaxreg.registration.register import register_pair  # noqa: E402

SHARES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Config:
    """The measurement of the rule of `--lam auto`."""

    data: Path
    """Cohort folder."""
    model: Path | None = None
    """Network; by default the one that comes with jaxreg."""
    optimize_only: bool = False
    """Direct optimisation instead of a network."""
    split: str = "val"
    """Split whose neighbouring pairs are registered."""
    pairs: int = 5
    """Pairs at most."""


def main(config: Config) -> None:
    """Print Dice against λ, the rule's choices and what they cost."""
    cohort = read_cohort(config.data)
    members = [
        [p for p in cohort.members(config.split, d) if cohort.file(p, "dseg").is_file()]
        for d in ("T1w", "T2w")
    ]
    found = []
    for fixed, moving in neighbour_pairs(*members)[: config.pairs]:
        settings = RegisterConfig(
            model=config.model,
            optimize_only=config.optimize_only,
            lam="auto",
            fixed_labels=cohort.file(fixed, "dseg"),
            moving_labels=cohort.file(moving, "dseg"),
        )
        images = cohort.file(fixed, "T1w"), cohort.file(moving, "T2w")
        result = register_pair(*images, settings, Clock(), say=lambda line: None)
        dice = [scored(result, point.displacement)[0] for point in result.curve]
        print(fixed, moving, np.round(dice, 4).tolist(), flush=True)
        curve = [d._replace(displacement=None, inverse=None, moved=None) for d in result.curve]
        found.append((result.before.similarity, curve, dice))
    table = np.array([dice for _, _, dice in found])
    mean = table.mean(axis=0)
    for lam, value in zip(lambda_selection.LAMS, mean, strict=True):
        print(f"λ {lam:.1f}  Dice {value:.4f}")
    best = float(mean.max())
    print(f"best fixed λ {lambda_selection.LAMS[int(mean.argmax())]}: {best:.4f}")
    print(f"best λ of each pair (an upper bound): {table.max(axis=1).mean():.4f}")
    for share in SHARES:
        chosen = [lambda_selection.choose(b, c, share=share).lam for b, c, _ in found]
        at = [lambda_selection.LAMS.index(lam) for lam in chosen]
        value = table[np.arange(len(at)), at].mean()
        mark = " (the rule)" if share == lambda_selection.SHARE else ""
        print(
            f"share {share:.2f}: Dice {value:.4f}, {value - best:+.4f} against the best fixed λ; "
            f"chosen {chosen}{mark}"
        )


if __name__ == "__main__":
    main(tyro.cli(Config))
