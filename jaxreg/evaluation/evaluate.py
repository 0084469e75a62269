"""`eval`: a run's λ sweep over a split, scored on the cohort's own grid.

Of several processes each scores its share of the pairs; the first puts the parts together. What is
written does not depend on how many there are, apart from the seconds.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxreg import distributed
from jaxreg.data.cohort import Cohort, automatic_line, fingerprint, neighbour_pairs
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.evaluation import partial_results, report
from jaxreg.evaluation.sweep import score_pair
from jaxreg.io.remarks import WARNING, grouped
from jaxreg.models.checkpoint import parameters_sha256
from jaxreg.models.model import Model
from jaxreg.models.run_folder import claimed_by_first
from jaxreg.progress import SILENT, Progress, write_line


def parse_lambdas(text: str) -> list[float]:
    """`0:1:0.1` (first:last:step, both ends in) or `0.2,0.7` as ascending numbers.

    Raises:
        InputError: it does not parse, is empty, or leaves [0, 1].
    """
    wanted = "--lambdas: expected FIRST:LAST:STEP or A,B,… in [0, 1]"
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            count = int(np.floor((last - first) / step + 1e-6)) + 1 if step > 0 else 0
            values = [round(first + i * step, 9) for i in range(min(count, 10_001))]
        else:
            values = sorted({float(part) for part in text.split(",")})
    except (ValueError, OverflowError) as error:
        raise InputError(f"{wanted}, got {text!r}.") from error
    if not values or len(values) > 10_000 or not all(0 <= v <= 1 for v in values):
        raise InputError(f"{wanted}, got {text!r}.")
    return values


def split_pairs(cohort: Cohort, split: str, domains: tuple[str, str], *, every: bool):
    """(fixed, moving) of a split, subjects with labels: neighbours, or every ordered pair.

    Raises:
        InputError: no pair, or no subject with labels.
    """
    fixed, moving = (
        [p for p in cohort.members(split, d) if cohort.file(p, "dseg").is_file()] for d in domains
    )
    if every:
        pairs = [(f, m) for f, m in itertools.product(fixed, moving) if f != m]
    else:
        pairs = neighbour_pairs(fixed, moving)
    if not pairs:
        raise InputError(
            f"{cohort.folder}: expected two subjects with labels (_dseg) in split {split!r}."
        )
    return pairs


def evaluate(
    model: Model,
    name: str,
    cohort: Cohort,
    split: str,
    lams: Sequence[float],
    folder: Path,
    *,
    every_pair: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Sweep, score, and write results.csv, summary.json and the figures into `folder`.

    The same evaluation, cut off, goes on with the pairs that were not scored and saved before.

    Raises:
        InputError: the cohort lacks the split, a domain, labels or structures.
    """
    if not cohort.structures:
        raise InputError(f"{cohort.folder / 'labels.tsv'}: expected structures to score, got none.")
    domains = model.config.cohort.domain_pair
    if model.config.network.lam is not None:
        lams = [model.config.network.lam]
    pairs = split_pairs(cohort, split, domains, every=every_pair)
    with claimed_by_first(folder):
        return _evaluate(model, name, cohort, split, lams, pairs, folder, progress)


def _evaluate(model, name, cohort, split, lams, pairs, folder, progress) -> dict[str, Any]:
    """As `evaluate`, of known pairs, into a folder that is there."""
    domains = model.config.cohort.domain_pair
    first, own = pairs[0], distributed.share(pairs)
    subjects = sorted({p for pair in own or [first] for p in pair})
    images = sorted({(p, d) for pair in own or [first] for p, d in zip(pair, domains, strict=True)})
    progress = progress if distributed.index() == 0 else SILENT
    spacing, remarks = model.config.cohort.spacing, list[str]()
    with progress.phase(f"read the {split} split", announced=False):
        files = [*images, *((p, "dseg") for p in subjects)]
        native = Volumes(cohort, files, remark=remarks.append)
        volumes = native if spacing is None else Volumes(cohort, images, spacing_mm=spacing)
    for line in grouped(remarks):
        write_line(line, stream=sys.stderr if line.startswith(WARNING) else sys.stdout)
    require_spacing(model, volumes)
    structures = sorted(cohort.structures.items())
    identity = [model.sha256, model.step, fingerprint(cohort, files), structures, list(lams), own]
    so_far = partial_results.SoFar(folder, identity)
    example = ([], [])
    for pair in progress.each(own, total=len(own), name=name, unit="pairs"):
        if pair in so_far.scores and pair != first:  # the first one's displacements are drawn
            continue
        scores = []
        for score, displacement in score_pair(model, volumes, native, pair, lams):
            scores.append(score)
            if pair == first and displacement is not None:
                example[0].append(score.lam)
                example[1].append(displacement)
        so_far.add(pair, scores)
    scores = partial_results.together(
        folder, [score for pair in own for score in so_far.scores[pair]]
    )
    if distributed.index() > 0:
        so_far.forget()
        return distributed.broadcast_from_primary(dict)
    summary = report.summarize(scores) | {
        "run": name,
        "step": model.step,
        "split": split,
        "data": str(cohort.folder),
        "parameters_sha256": parameters_sha256(model.params),
    }
    automatic = automatic_line(cohort, (p for pair in pairs for p in pair))
    if automatic is not None:
        summary["automatic_labels"] = automatic
    report.write_results(folder / "results.csv", scores, [name for _, name in structures])
    report.write_summary(folder / "summary.json", summary)
    fixed, moving = (native.scan(p, d).image for p, d in zip(first, domains, strict=True))
    report.write_figures(folder, name, summary, (fixed, moving, *example), native.spacing_mm)
    so_far.forget()
    return distributed.broadcast_from_primary(lambda: summary)


def require_spacing(model: Model, volumes: Volumes) -> None:
    """Raise InputError where the cohort's spacing is not the one that the run was trained at."""
    if not np.allclose(volumes.spacing_mm, model.spacing_mm, rtol=0.02):
        raise InputError(
            f"{volumes.cohort.folder}: expected the run's {np.round(model.spacing_mm, 3)} mm, got "
            f"{np.round(volumes.spacing_mm, 3)} mm; prepare it at the training spacing."
        )


def print_summary(summary: dict[str, Any]) -> None:
    """The table λ, Dice, folds, SDlogJ, seconds on standard output."""
    if "automatic_labels" in summary:
        print(summary["automatic_labels"])
    none = summary["no_registration"]
    print(f"{'λ':>6} {'Dice':>8} {'± SD':>7} {'folds %':>9} {'SDlogJ':>8} {'s/pair':>7}")
    print(f"{'none':>6} {none['dice_mean']:8.4f} {none['dice_std']:7.4f}")
    for row in summary["lambdas"]:
        mark = " best" if row["lam"] == summary["best_lam"] else ""
        print(
            f"{row['lam']:6.2f} {row['dice_mean']:8.4f} {row['dice_std']:7.4f} "
            f"{row['folds_percent']:9.4f} {row['sdlogj']:8.4f} {row['seconds']:7.2f}{mark}"
        )
