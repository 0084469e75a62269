"""What an evaluation leaves on disk: results.csv, summary.json, the figures."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxreg.errors import InputError
from jaxreg.evaluation.figures import basic
from jaxreg.evaluation.statistics import (
    best_index,
    mean_known,
    over_subjects,
    standard_deviation,
)
from jaxreg.evaluation.sweep import Score
from jaxreg.spatial import warp

COLUMNS = ("fixed", "moving", "lam", "structure", "dice", "folds_percent", "sdlogj", "seconds")


def write_results(path: Path, scores: Sequence[Score], structures: Sequence[str]) -> None:
    """A row per pair, λ and structure that both subjects have; `lam` empty for no registration."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for score in scores:
            lam = "" if score.lam is None else f"{score.lam:.6g}"
            tail = [f"{score.folds_percent:.6g}", f"{score.sdlogj:.6g}", f"{score.seconds:.4g}"]
            for name, dice in zip(structures, score.dice, strict=True):
                if not np.isnan(dice):
                    writer.writerow([score.fixed, score.moving, lam, name, f"{dice:.6f}", *tail])


def summarize(scores: Sequence[Score]) -> dict[str, Any]:
    """Per λ: mean Dice over pairs, its standard deviation, folds, SDlogJ, seconds; the best λ.

    A pair whose subjects share no structure counts in all but Dice. `dice_sem` is the standard
    error over subjects (`statistics.over_subjects`), 0 for one alone.

    Raises:
        InputError: no pair shares a structure.
    """
    if all(np.isnan(s.mean_dice) for s in scores):
        raise InputError("expected a structure that both subjects of a pair have, got none.")
    lams = sorted({s.lam for s in scores if s.lam is not None})
    rows = [_row([s for s in scores if s.lam == lam], lam) for lam in lams]
    best = rows[best_index(np.array([row["dice_mean"] for row in rows]))]
    return {
        "no_registration": _row([s for s in scores if s.lam is None], None),
        "lambdas": rows,
        "best_lam": best["lam"],
        "best_dice_mean": best["dice_mean"],
        "pairs": len({(s.fixed, s.moving) for s in scores}),
        "structures_per_pair": sorted({int(np.sum(~np.isnan(s.dice))) for s in scores}),
    }


def _row(scores: Sequence[Score], lam: float | None) -> dict[str, Any]:
    dice = np.array([s.mean_dice for s in scores])
    known = dice[~np.isnan(dice)]
    subjects = over_subjects(dice, [s.fixed for s in scores])
    subjects = subjects[~np.isnan(subjects)]
    error = standard_deviation(subjects) / len(subjects) ** 0.5 if len(subjects) > 1 else 0.0
    return {
        "lam": lam,
        "dice_mean": mean_known(dice),
        "dice_std": float(known.std(ddof=1)) if len(known) > 1 else 0.0,
        "dice_sem": error,
        "folds_percent": float(np.mean([s.folds_percent for s in scores])),
        "sdlogj": float(np.mean([s.sdlogj for s in scores])),
        "seconds": float(np.median([s.seconds for s in scores])),
    }


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """The summary as JSON."""
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def curve(name: str, summary: dict[str, Any]) -> basic.Curve:
    """A run's line in Fig. 2."""
    rows = summary["lambdas"]
    columns = {k: np.array([row[k] for row in rows], float) for k in rows[0]}
    return basic.Curve(
        name,
        columns["lam"],
        columns["dice_mean"],
        columns["dice_sem"],
        columns["folds_percent"],
    )


def write_figures(
    folder: Path,
    name: str,
    summary: dict[str, Any],
    example: tuple[np.ndarray, np.ndarray, list[float], list[np.ndarray]],
    spacing_mm: tuple[float, float, float],
) -> None:
    """Fig. 2 (Dice and folds against λ) and Fig. 4 (moved images and grids across λ) of a run.

    `example` is (fixed, moving, λs, displacements) of one pair on the cohort's grid.
    """
    baseline = summary["no_registration"]["dice_mean"]
    figure = basic.lambda_curves([curve(name, summary)], baseline=baseline)
    for suffix in ("png", "pdf"):
        basic.save(figure, folder / f"figure2.{suffix}")
    fixed, moving, lams, displacements = example
    moved = np.stack(
        [np.asarray(warp(jnp.asarray(moving), jnp.asarray(u)))[..., 0] for u in displacements]
    )
    figure = basic.lambda_sweep_rows(
        np.asarray(fixed)[..., 0],
        np.asarray(moving)[..., 0],
        moved,
        np.stack(displacements),
        np.asarray(lams),
        spacing_mm=spacing_mm,
    )
    for suffix in ("png", "pdf"):
        basic.save(figure, folder / f"figure4.{suffix}")
