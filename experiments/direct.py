"""Direct optimisation of each pair's velocity with a loss: Dice and folds against λ and settings.

    python experiments/direct.py --data=DIR --loss=lncc --lambdas=0.5,0.8 --lncc-window=5

What a similarity can reach without a network, on neighbouring pairs of a split; settings are tuned
here, on the validation split, and so are λ and the steps of refinement that a released network
registers with (--start). The contrastive losses take the encoders of a stage 1 run, and their
projections are optimised with the velocity.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402

from jaxreg.configuration.objective import ObjectiveConfig  # noqa: E402
from jaxreg.configuration.registration import DIRECT_RATE, REFINE_RATE  # noqa: E402
from jaxreg.configuration.training import CohortConfig, RegistrationConfig  # noqa: E402
from jaxreg.data.cohort import neighbour_pairs, read_cohort  # noqa: E402
from jaxreg.data.volumes import Volumes  # noqa: E402
from jaxreg.evaluation import metrics  # noqa: E402
from jaxreg.evaluation.evaluate import parse_lambdas  # noqa: E402
from jaxreg.losses.similarity import FeatureExtractor, init_projections, make_similarity  # noqa: E402
from jaxreg.models.release import load_model  # noqa: E402
from jaxreg.pair import Pair  # noqa: E402
from jaxreg.registration.deformable.optimization import (  # noqa: E402
    optimize_jointly,
    taper,
    zero_velocity,
)
from jaxreg.registration.deformable.prediction import predicted  # noqa: E402
from jaxreg.spatial import (  # noqa: E402
    displacement_of,  # noqa: E402
    resize_displacement,
    warp,
)
from jaxreg.training.encoders import load_encoders  # noqa: E402


@dataclass(frozen=True)
class Config:
    """Direct optimisation on the neighbouring pairs of a split."""

    data: Path
    """Folder of a prepared cohort."""
    split: str = "val"
    """Split whose neighbouring pairs are registered."""
    pairs: int = 5
    """Pairs, at most."""
    lambdas: str = "0.2,0.5,0.8"
    """λ to try."""
    iterations: int = 80
    """Iterations of Adam."""
    learning_rate: float | None = None
    """Learning rate of Adam, voxels of the velocity's grid; default 0.05, and 0.025 with
    --start."""
    domains: str = "T1w,T2w"
    """Contrasts of the fixed and the moving image."""
    spacing: float | None = None
    """Register at this spacing in mm; scores are on the cohort's own grid."""
    encoders: Path | None = None
    """Stage 1 run, for nce and nce_mi."""
    start: Path | None = None
    """Begin with this network's answer at the same λ, as `jaxreg register --refine` does."""
    passes: int | None = None
    """Passes of that network; default its own."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


def main(config: Config) -> None:
    """Print a row for each λ."""
    cohort = read_cohort(config.data)
    domains = CohortConfig(domains=config.domains).domain_pair
    subjects = [cohort.members(config.split, d) for d in domains]
    pairs = neighbour_pairs(*subjects)[: config.pairs]
    images = [(p, d) for pair in pairs for p, d in zip(pair, domains, strict=True)]
    native = Volumes(cohort, [*images, *((p, "dseg") for pair in pairs for p in pair)])
    volumes = (
        native if config.spacing is None else Volumes(cohort, images, spacing_mm=config.spacing)
    )
    register = registrar(config, domains)
    for lam in parse_lambdas(config.lambdas):
        rows = []
        for fixed, moving in pairs:
            scans = volumes.scan(fixed, domains[0]), volumes.scan(moving, domains[1])
            pair = Pair(
                *(jnp.asarray(s.image) for s in scans), *(jnp.asarray(s.mask) for s in scans)
            )
            start = time.perf_counter()
            u = jax.block_until_ready(register(pair, jnp.float32(lam)))
            mask = native.scan(fixed, domains[0]).mask
            found = score(u, volumes, native, fixed, moving, mask)
            rows.append((*found, time.perf_counter() - start))
        none, dice, folds, seconds = np.array(rows).T
        print(
            f"{config.objective.loss} λ {lam:.2f}: Dice {dice.mean():.4f}, none {none.mean():.4f}, "
            f"folds {folds.mean():.4f} %, {np.median(seconds):.1f} s a pair",
            flush=True,
        )


def registrar(config: Config, domains: tuple[str, str]):
    """(pair, λ) → displacement on the pair's grid, in its voxels."""
    registration = RegistrationConfig(
        cohort=CohortConfig(domains=config.domains),
        objective=config.objective,
        encoders=config.encoders,
    )
    encoder, encoders, _ = load_encoders(registration)
    projections = None
    if encoder is not None:
        projections = init_projections(jax.random.key(1), domains, encoder.channels)

    def similarity_of(projections):
        features = None if encoder is None else FeatureExtractor(encoders, projections)
        return make_similarity(config.objective, domains, encoder=encoder, features=features)

    model = None if config.start is None else load_model(config.start)

    def begin(pair, lam):
        if model is None:
            return zero_velocity(pair.fixed.shape[:3])
        passes = config.passes or model.defaults.passes
        return next(predicted(model, pair, [lam], passes=passes))

    def register(pair, lam):
        velocity, _, _ = optimize_jointly(
            jax.random.key(0),
            pair,
            lam,
            begin(pair, lam),
            projections,
            similarity_of,
            config.objective,
            steps=config.iterations,
            learning_rate=config.learning_rate or (DIRECT_RATE if model is None else REFINE_RATE),
        )
        return displacement_of(
            taper(velocity), pair.fixed.shape[:3], squarings=config.objective.squarings
        )

    return register


def score(u, volumes, native, fixed, moving, mask):
    """(Dice without registration, Dice, folds in %) on the cohort's own grid."""
    structures = jnp.asarray(sorted(native.cohort.structures), jnp.int32)
    here, there = (jnp.asarray(native.labels(p)) for p in (fixed, moving))
    x, y, z = np.asarray(volumes.spacing_mm) / native.spacing_mm
    factor = float(x), float(y), float(z)
    if factor != (1.0, 1.0, 1.0):
        u = resize_displacement(u, native.shape, factor)
    moved = warp(there[..., None], u, order=0)[..., 0]
    both = np.asarray(metrics.present(here, there, structures))
    plain, dice = (
        np.asarray(metrics.dice(here, x, structures))[both].mean() for x in (there, moved)
    )
    return plain, dice, float(metrics.folds_percent(u, jnp.asarray(mask)))


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
