"""Which map of a registration says where to distrust it? `python experiments/trust.py --model DIR`.

Each pair of a labelled cohort is registered at λ and around it. A voxel of the union of the
structures is wrong if the moved label is not the fixed one. For each candidate map the table gives
the area under the ROC curve (0.5: chance) with which it ranks wrong voxels above right ones: the
mean over the pairs and in how many it beats ‖u‖. Errors lie at borders, and so does contrast, which
knows nothing of the registration. So the second area counts only voxels that touch another label,
and the last columns ask about regions: the rank correlation, over blocks of voxels, of the mean map
with the share of wrong voxels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Bool, Float, Int
from scipy import ndimage, stats
from tqdm import tqdm

from jaxreg import runtime
from jaxreg.configuration.objective import LNCC_EPSILON, LNCC_WINDOW
from jaxreg.data.cohort import read_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.evaluation.evaluate import require_spacing, split_pairs
from jaxreg.evaluation.sweep import displacements
from jaxreg.losses.intensity import squared_correlation
from jaxreg.models.model import Model
from jaxreg.models.release import load_model
from jaxreg.spatial import jacobian_determinant, resize_displacement, warp

BASELINE = "‖u‖"
BLOCK = 5
"""Voxels along the side of a region."""


@dataclass(frozen=True)
class TrustConfig:
    """What is measured.

    Attributes:
        model: workdir of a registration run.
        data: a prepared cohort with labels.
        split: whose pairs (neighbours) are registered.
        pairs: how many of them.
        lam: λ of the result.
        reach: the spread is taken over λ − reach … λ + reach.
    """

    model: Path
    data: Path
    split: str = "val"
    pairs: Annotated[int, tyro.conf.arg(help="0: all")] = 0
    lam: float = 0.5
    reach: float = 0.2


def main() -> None:
    """Measure and print the table."""
    config = tyro.cli(TrustConfig, description=__doc__)
    model = load_model(config.model)
    cohort = read_cohort(config.data)
    domains = model.config.cohort.domain_pair
    pairs = split_pairs(cohort, config.split, domains, every=False)
    pairs = pairs[: config.pairs] if config.pairs else pairs
    kinds = [(p, kind) for pair in pairs for p in pair for kind in (*domains, "dseg")]
    volumes = Volumes(cohort, kinds, spacing_mm=model.config.cohort.spacing)
    require_spacing(model, volumes)
    native = Volumes(cohort, kinds)
    scores: dict[str, list[tuple[float, float, float]]] = {}
    shares = []
    for pair in tqdm(pairs, unit="pair"):
        wrong, union, border, maps = measure(model, volumes, native, pair, config)
        shares.append(wrong[union].mean())
        for name, values in maps:
            everywhere = area(values[union], wrong[union])
            at_borders = area(values[union & border], wrong[union & border])
            row = everywhere, at_borders, regional_correlation(values, wrong, union)
            scores.setdefault(name, []).append(row)
    print(
        f"{len(pairs)} pairs of {config.split}, λ {config.lam} ± {config.reach}, step {model.step}"
    )
    print(f"wrong: {100 * np.mean(shares):.1f} % of the union of structures")
    print_table({name: np.array(rows) for name, rows in scores.items()})


def measure(
    model: Model, volumes: Volumes, native: Volumes, pair: tuple[str, str], config: TrustConfig
) -> tuple[
    Bool[np.ndarray, "x y z"],
    Bool[np.ndarray, "x y z"],
    Bool[np.ndarray, "x y z"],
    Iterator[tuple[str, Float[np.ndarray, "x y z"]]],
]:
    """(wrong, union of structures, voxels at a border, the candidate maps), on the native grid."""
    domains = model.config.cohort.domain_pair
    fixed, moving = (
        jnp.asarray(volumes.scan(p, d).image) for p, d in zip(pair, domains, strict=True)
    )
    lams = np.clip(config.lam + config.reach * np.linspace(-1, 1, 5), 0, 1).tolist()
    chunks = displacements(
        model.config.network,
        model.params["network"],
        fixed,
        moving,
        lams,
        squarings=model.config.objective.squarings,
    )
    coarse = [u for _, chunk, _ in chunks for u in chunk]
    factor = tuple(a / b for a, b in zip(volumes.spacing_mm, native.native_spacing_mm, strict=True))
    fields = [resize_displacement(u, native.native_shape, factor) for u in coarse]
    images = [native.scan(p, d).image for p, d in zip(pair, domains, strict=True)]
    labels = [known(native.labels(p), sorted(native.cohort.structures)) for p in pair]
    moved_labels = np.asarray(warp(jnp.asarray(labels[1])[..., None], fields[2], order=0))[..., 0]
    wrong = moved_labels != labels[0]
    union = (moved_labels > 0) | (labels[0] > 0)
    border = ndimage.maximum_filter(labels[0], 3) != ndimage.minimum_filter(labels[0], 3)
    spacing_mm = np.asarray(native.native_spacing_mm, np.float32)
    return wrong, union, border, candidates(images[0], images[1], fields, spacing_mm)


def candidates(fixed, moving, fields, spacing_mm) -> Iterator[tuple[str, np.ndarray]]:
    """(name, map) of everything that may say where a registration is wrong; the higher, the worse.

    `fields` are displacements at λ in ascending order, the result's in the middle.
    """
    result = fields[len(fields) // 2]
    moved = np.stack([np.asarray(warp(jnp.asarray(moving), u))[..., 0] for u in fields])
    u_mm = np.stack(fields) * spacing_mm
    middle, inside = moved[len(fields) // 2], fixed[..., 0] > 0
    everywhere = jnp.ones(inside.shape, jnp.float32)
    images = jnp.asarray(fixed), jnp.asarray(middle)[..., None]
    correlation = squared_correlation(
        *images, weight=everywhere, window=LNCC_WINDOW, epsilon=LNCC_EPSILON
    )
    dissimilarity = 1 - np.asarray(correlation)
    spread = np.sqrt(u_mm.var(axis=0).sum(axis=-1))
    contrast = moved.std(axis=0)
    length = np.linalg.norm(u_mm[len(fields) // 2], axis=-1)
    determinant = np.asarray(jacobian_determinant(result))
    yield BASELINE, length
    yield "λ spread of u", spread
    yield "λ spread of u / ‖u‖", spread / (length + 0.1)
    yield "λ spread of the moved intensity", contrast
    yield "|log det J|", np.abs(np.log(np.maximum(determinant, 1e-3)))
    yield "1 − LNCC", dissimilarity
    yield "|∇ moved|", gradient(middle)
    yield "|∇ fixed|", gradient(fixed[..., 0])
    for name, one, other in (
        ("λ spread of u, 1 − LNCC", spread, dissimilarity),
        ("‖u‖, 1 − LNCC", length, dissimilarity),
        ("‖u‖, |∇ moved|", length, gradient(middle)),
        ("‖u‖, λ spread of the moved intensity", length, contrast),
    ):
        yield f"ranks of {name}", ranks(one, inside) + ranks(other, inside)


def gradient(image: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """Length of the image's gradient."""
    return np.linalg.norm(np.stack(list(np.gradient(image))), axis=0)


def ranks(
    values: Float[np.ndarray, "x y z"], inside: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z"]:
    """Share of the voxels `inside` that lie below each value."""
    return np.searchsorted(np.sort(values[inside]), values) / inside.sum()


def known(labels: Int[np.ndarray, "x y z"], structures: list[int]) -> Int[np.ndarray, "x y z"]:
    """The labels, 0 for all that is not among the structures."""
    return np.where(np.isin(labels, structures), labels, 0)


def area(values: Float[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> float:
    """Probability that a wrong voxel has the higher value than a right one (ties: one half)."""
    count = int(wrong.sum())
    total = stats.rankdata(values)[wrong].sum() - count * (count + 1) / 2
    return float(total / (count * (wrong.size - count)))


def regional_correlation(
    values: Float[np.ndarray, "x y z"],
    wrong: Bool[np.ndarray, "x y z"],
    union: Bool[np.ndarray, "x y z"],
) -> float:
    """Spearman correlation of mean value and share wrong, over blocks half in the union."""

    def sums(volume):
        inner = volume[tuple(slice(n - n % BLOCK) for n in volume.shape)].astype(np.float64)
        x, y, z = (n // BLOCK for n in inner.shape)
        return inner.reshape(x, BLOCK, y, BLOCK, z, BLOCK).sum(axis=(1, 3, 5))

    voxels = sums(union)
    full = voxels >= BLOCK**3 / 2
    means = (sums(np.where(union, v, 0))[full] / voxels[full] for v in (values, wrong))
    return float(np.asarray(stats.spearmanr(*means))[0])


def print_table(scores: dict[str, Float[np.ndarray, "p 3"]]) -> None:
    """A Markdown table, the best map first: mean over pairs, and how often it beats ‖u‖."""
    baseline = scores[BASELINE]
    print("| map | area | | area at borders | | regional ρ | |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in sorted(scores.items(), key=lambda item: -item[1][:, 0].mean()):
        wins = (rows > baseline).sum(axis=0)
        columns = [
            f"{m:.3f} | {w}/{len(rows)}" for m, w in zip(rows.mean(axis=0), wins, strict=True)
        ]
        print(f"| {name.replace('|', chr(92) + '|')} | {' | '.join(columns)} |")


if __name__ == "__main__":
    runtime.prepare()
    main()
