"""`eval --compare`: several runs on one cohort, λ chosen on its validation split.

Each run is swept over the validation and the test split; what an earlier evaluation left is taken
where it is of the same parameters, λs, pairs and data. Runs are left as they are: what is computed
here goes into the comparison's own folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxreg.configuration.training import EMBEDDED
from jaxreg.data.cohort import Cohort, read_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.evaluation.compare_runs.table import (
    Scored,
    print_table,
    table,
    write_structures,
    write_table,
)
from jaxreg.evaluation.evaluate import evaluate, split_pairs
from jaxreg.evaluation.figures import basic, comparison
from jaxreg.evaluation.quality import Quality, quality, quality_of_no_registration
from jaxreg.evaluation.results import Sweep, read_sweep, reusable
from jaxreg.evaluation.statistics import best_index, over_subjects
from jaxreg.evaluation.sweep import displacements
from jaxreg.io.atomic import require_writable
from jaxreg.models.checkpoint import parameters_sha256
from jaxreg.models.model import Model
from jaxreg.models.release import load_model
from jaxreg.progress import SILENT, Progress
from jaxreg.spatial import resize_displacement, warp

METHOD = "nce_mi"
"""The loss that the others are compared to: the paper's method."""

LABELS = {
    "mi": "MI",
    "lmi": "Local MI",
    "ngf": "NGF",
    "mind": "MIND",
    "nce": "NCE",
    "nce_mi": "NCE + MI",
    "lncc": "LNCC",
    "mse": "MSE",
}
"""What the paper calls the losses."""


class Run(NamedTuple):
    """A run to compare: its folder, its model, what it is called, the λs that it is swept over."""

    workdir: Path
    name: str
    label: str
    model: Model
    lams: list[float]

    @property
    def loss(self) -> str:
        """The loss that it was trained with."""
        return self.model.config.objective.loss


def compare_runs(
    workdirs: Sequence[Path],
    data: Path | None,
    lams: Sequence[float],
    folder: Path,
    *,
    every_pair: bool = False,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """The rows of table.csv; the tables and Figures 2 to 4 are written into `folder`.

    Without `data` the cohort is the one that the runs were trained on.

    Raises:
        InputError: no run or λ, a run that is missing, two of one name, runs of different domains,
            spacings or (without `data`) cohorts, a cohort with no validation or test pairs.
    """
    runs = load_runs(workdirs, lams)
    require_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the comparison, got a file.")
    cohort = read_cohort(data or _common_data(runs))
    domains = runs[0].model.config.cohort.domain_pair
    val, test = (split_pairs(cohort, s, domains, every=every_pair) for s in ("val", "test"))
    reference = next((run for run in runs if run.loss == METHOD), runs[0])
    notes = budget_notes(runs)
    tested, chosen = [], []
    for run in runs:
        sweep = _swept(run, cohort, "val", val, folder, every_pair, progress)
        chosen.append(best_index(over_subjects(sweep.mean_dice, sweep.fixed).mean(axis=1)))
        tested.append(_swept(run, cohort, "test", test, folder, every_pair, progress))
    with progress.phase("read the test split", announced=False):
        volumes, native = _volumes(runs[0].model, cohort, test)
    scored = [
        _scored(run, note, sweep, i, volumes, native, progress)
        for run, note, sweep, i in zip(runs, notes, tested, chosen, strict=True)
    ]
    plain_quality = [quality_of_no_registration(native, pair) for pair in test]
    folder.mkdir(parents=True, exist_ok=True)  # nothing was evaluated where all was there
    rows = table(scored, scored[runs.index(reference)], plain_quality)
    write_table(folder / "table.csv", rows)
    write_structures(folder / "structures.csv", scored)
    with progress.phase("figures", announced=False):
        _write_figures(folder, runs, scored, volumes, native)
    _report(rows, runs, reference, notes, folder)
    return rows


def load_runs(workdirs: Sequence[Path], lams: Sequence[float]) -> list[Run]:
    """The runs, checked to be comparable.

    Raises:
        InputError: as `compare_runs`.
    """
    if not workdirs:
        raise InputError("--compare: expected registration runs, got none.")
    if not lams:
        raise InputError("--lambdas: expected at least one λ, got none.")
    names = [workdir.resolve().name for workdir in workdirs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--compare: expected runs of different names, got {name!r} twice.")
    models = [load_model(workdir) for workdir in workdirs]
    for workdir, model in zip(workdirs, models, strict=True):
        for what, wanted, got in (
            ("domains", models[0].config.cohort.domains, model.config.cohort.domains),
            ("spacing in mm", np.round(models[0].spacing_mm, 3), np.round(model.spacing_mm, 3)),
        ):
            if not np.array_equal(wanted, got):
                raise InputError(
                    f"{workdir}: expected the {what} of {names[0]}, {wanted}; got {got}."
                )
    losses = [model.config.objective.loss for model in models]
    runs = []
    for workdir, name, loss, model in zip(workdirs, names, losses, models, strict=True):
        label = LABELS.get(loss, loss)
        label = label if losses.count(loss) == 1 else f"{label} ({name})"
        alone = model.config.network.lam
        runs.append(
            Run(workdir, name, label, model, sorted(set(lams)) if alone is None else [alone])
        )
    return runs


def _common_data(runs):
    """The one cohort that all runs were trained on."""
    stored = [run.model.config.cohort.data or EMBEDDED for run in runs]
    for run, path in zip(runs, stored, strict=True):
        if path.resolve() != stored[0].resolve():
            raise InputError(
                f"{run.workdir}: expected the cohort of {runs[0].name}, {stored[0]}; got {path}. "
                "--data says which one to score them on."
            )
    return stored[0]


def budget_notes(runs: Sequence[Run]) -> list[str]:
    """For each run, how its training was shorter than the longest one, or where it began."""
    seen = [run.model.step * run.model.config.optimizer.batch_size for run in runs]
    starts = [run.model.config.init_from for run in runs]
    unequal = "" if len(set(starts)) == 1 else "unequal budget: "
    notes = []
    for start, pairs in zip(starts, seen, strict=True):
        parts = []
        if pairs < max(seen):
            parts.append(f"unequal budget: {pairs} of {max(seen)} training pairs")
        if start is not None:
            parts.append(f"{unequal}starts from {start}")
        notes.append("; ".join(parts))
    return notes


def _swept(run, cohort, split, pairs, folder, every_pair, progress) -> Sweep:
    """A run's sweep over a split: an earlier one's where it holds, else a new one."""
    structures = [cohort.structures[i] for i in sorted(cohort.structures)]
    digest = parameters_sha256(run.model.params)
    own = folder / "eval" / run.name / split
    for place in (run.workdir / "eval" / split, own):
        if reusable(place, digest, cohort, pairs):
            sweep = read_sweep(place, run.lams, pairs, structures)
            if sweep is not None:
                print(f"{run.name}: {split} split from {place}", flush=True)
                return sweep
    print(f"{run.name} at step {run.model.step}: {split} split of {cohort.folder}", flush=True)
    evaluate(
        run.model,
        run.label,
        cohort,
        split,
        run.lams,
        own,
        every_pair=every_pair,
        progress=progress,
    )
    sweep = read_sweep(own, run.lams, pairs, structures)
    if sweep is None:
        raise InputError(f"{cohort.folder}: expected a structure in common in each {split} pair.")
    return sweep


def _volumes(model: Model, cohort: Cohort, pairs) -> tuple[Volumes, Volumes]:
    """The volumes of some pairs at the training spacing and on the cohort's own grid."""
    domains = model.config.cohort.domain_pair
    images = sorted({(p, d) for pair in pairs for p, d in zip(pair, domains, strict=True)})
    labels = sorted({(p, "dseg") for pair in pairs for p in pair})
    native = Volumes(cohort, [*images, *labels])
    spacing = model.config.cohort.spacing
    return (native if spacing is None else Volumes(cohort, images, spacing_mm=spacing)), native


def _scored(run, note, sweep, chosen, volumes, native, progress) -> Scored:
    """A run with the quality of its test pairs at the chosen λ."""
    lam = sweep.lams[chosen]
    pairs, name = sweep.pairs, f"{run.name} at λ = {lam:g}"
    measured: list[Quality] = [
        quality(run.model, volumes, native, pair, lam)
        for pair in progress.each(pairs, total=len(pairs), name=name, unit="pairs")
    ]
    digest = parameters_sha256(run.model.params)
    return Scored(
        run.name, run.label, run.loss, run.model.step, digest, note, sweep, chosen, measured
    )


def _write_figures(folder, runs, scored, volumes, native):
    """Figures 2 to 4; the pair is the one of median Dice with no registration."""
    test = scored[0].test
    plain = test.plain_mean_dice
    middle = int(np.argsort(plain, kind="stable")[len(plain) // 2])
    pair, domains = test.pairs[middle], runs[0].model.config.cohort.domain_pair
    fixed, moving = (native.scan(p, d) for p, d in zip(pair, domains, strict=True))
    height = round(float(np.nonzero(fixed.mask)[2].mean()))
    cut = slice(height, height + 1)
    slices = [
        _slices(run, each, middle, volumes, native, cut)
        for run, each in zip(runs, scored, strict=True)
    ]
    pictures = fixed.image[:, :, cut, 0], moving.image[:, :, cut, 0], slices
    spacing = native.native_spacing_mm
    baseline = float(over_subjects(plain, test.fixed).mean())
    made = {
        "figure2": comparison.dice_and_folds([_line(each) for each in scored], baseline=baseline),
        "figure3": comparison.best_registrations(
            *pictures, baseline=float(plain[middle]), spacing_mm=spacing
        ),
        "figure4": comparison.sweeps(*pictures, spacing_mm=spacing),
    }
    for name, figure in made.items():
        for suffix in ("png", "pdf"):
            basic.save(figure, folder / f"{name}.{suffix}")
    print(f"Figures 3 and 4 show fixed {pair[0]} and moving {pair[1]}, of median Dice before.")


def _line(scored: Scored) -> comparison.Line:
    """A run's line in Fig. 2."""
    dice, folds = (
        over_subjects(values, scored.test.fixed)
        for values in (scored.test.mean_dice, scored.test.folds_percent)
    )
    return comparison.Line(scored.label, np.array(scored.test.lams), dice, folds, scored.chosen)


def _slices(run, scored, pair_index, volumes, native, cut) -> comparison.Slices:
    """One axial slice of a test pair under each λ of a run."""
    pair, domains = scored.test.pairs[pair_index], run.model.config.cohort.domain_pair
    fixed, moving = (
        jnp.asarray(volumes.scan(p, d).image) for p, d in zip(pair, domains, strict=True)
    )
    source = jnp.asarray(native.scan(pair[1], domains[1]).image)
    spacings = zip(volumes.spacing_mm, native.native_spacing_mm, strict=True)
    factor = tuple(a / b for a, b in spacings)
    moved, shown = [], []
    config, params = run.model.config, run.model.params["network"]
    for _, chunk, _ in displacements(
        config.network, params, fixed, moving, run.lams, squarings=config.objective.squarings
    ):
        for u in chunk:
            if any(f != 1 for f in factor):
                u = resize_displacement(u, native.native_shape, factor)
            moved.append(np.asarray(warp(source, u))[:, :, cut, 0])
            shown.append(np.asarray(u)[:, :, cut])
    return comparison.Slices(
        scored.label,
        np.array(run.lams),
        np.stack(moved),
        np.stack(shown),
        scored.test.mean_dice[:, pair_index],
        scored.chosen,
    )


def _report(rows, runs, reference, notes, folder):
    """The table and what a reader of it must know, on standard output."""
    print_table(rows, [run.label for run in runs])
    what = "the paper's method" if reference.loss == METHOD else f"no run of {METHOD}: the first"
    print(f"Differences are to {reference.name} ({what}).")
    for run, note in zip(runs, notes, strict=True):
        if note:
            print(f"{run.name}: {note}.")
    print(f"table.csv, structures.csv and Figures 2 to 4 are in {folder}")
