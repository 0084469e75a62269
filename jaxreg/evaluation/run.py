"""From folders to results: what `jaxreg eval`, `jaxreg.evaluate` and `jaxreg.compare_runs` do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxreg import distributed
from jaxreg.configuration.evaluation import Pairs, Split
from jaxreg.configuration.training import EMBEDDED
from jaxreg.data.cohort import read_cohort
from jaxreg.data.synthetic.embedded import embedded_cohort
from jaxreg.errors import InputError
from jaxreg.evaluation.compare_runs import compare
from jaxreg.evaluation.evaluate import evaluate as evaluate_model
from jaxreg.evaluation.evaluate import parse_lambdas, print_summary
from jaxreg.models.model import newest_run
from jaxreg.models.release import load_model
from jaxreg.progress import SILENT, Progress


def evaluate(
    workdir: Path | str | None,
    *,
    data: Path | str | None = None,
    split: Split = "test",
    lambdas: str | Sequence[float] = "0:1:0.1",
    pairs: Pairs = "neighbours",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Register the pairs of a split at every λ, and score them.

    The table of results is printed; results.csv, summary.json and the figures are written into
    `eval/SPLIT` of the run.

    Args:
        workdir: the run of stage 2; None is the newest one in `runs`.
        data: the folder of a prepared cohort; by default that of the training.
        split: "train", "val" or "test".
        lambdas: numbers in [0, 1], or text as FIRST:LAST:STEP or A,B,….
        pairs: "neighbours" (each subject with the next one) or "all" (ordered pairs).
        progress: what shows how far the work is; by default nothing does.

    Returns:
        What summary.json holds: Dice, folds and SDlogJ at each λ and without registration.

    Raises:
        jaxreg.errors.InputError: no such run, or a cohort without what is scored.

    Examples:
        >>> import jaxreg
        >>> summary = jaxreg.evaluate("run", lambdas=[0.5])  # doctest: +ELLIPSIS
        run at step ...
        >>> summary["best_lam"]
        0.5
    """
    found = distributed.broadcast_from_primary(
        lambda: str(workdir or newest_run(Path("runs")) or "")
    )
    if not found:
        raise InputError(
            "runs: expected a registration run, found none; train one first (jaxreg train "
            "--stage=reg), or name its folder by --workdir."
        )
    run = Path(found)
    lams, model = _lams(lambdas), load_model(run)
    cohort = read_cohort(data or model.config.cohort.data or embedded_cohort(progress=progress))
    folder = run / "eval" / split
    print(f"{run} at step {model.step}: {split} split of {cohort.folder}")
    summary = evaluate_model(
        model,
        run.name,
        cohort,
        split,
        lams,
        folder,
        every_pair=pairs == "all",
        progress=progress,
    )
    print_summary(summary)
    print(f"results, summary and figures are in {folder}")
    return summary


def compare_runs(
    workdirs: Sequence[Path | str],
    *,
    data: Path | str | None = None,
    lambdas: str | Sequence[float] = "0:1:0.1",
    pairs: Pairs = "neighbours",
    out: Path | str = "runs/compare",
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Compare runs of stage 2 on one cohort; λ is chosen on its validation split.

    The table is printed; it and Figures 2 to 4 are written into `out`.

    Args:
        workdirs: the runs.
        data: the folder of a prepared cohort; by default the one that all were trained on.
        lambdas: numbers in [0, 1], or text as FIRST:LAST:STEP or A,B,….
        pairs: "neighbours" (each subject with the next one) or "all" (ordered pairs).
        out: the folder of the comparison.
        progress: what shows how far the work is; by default nothing does.

    Returns:
        The rows of table.csv.

    Raises:
        jaxreg.errors.InputError: a run that is missing, or runs that cannot be compared.

    Examples:
        >>> import jaxreg
        >>> rows = jaxreg.compare_runs(["run"], lambdas=[0.5])  # doctest: +ELLIPSIS
        run at step ...
        >>> len(rows)
        2
    """
    if distributed.count() > 1:
        raise InputError("--compare: expected one process, got several; evaluate each first.")
    folders = [Path(workdir) for workdir in workdirs]
    lams = _lams(lambdas)
    models = [load_model(folder) for folder in folders]
    if data is None and any(m.config.cohort.data in (None, EMBEDDED) for m in models):
        embedded_cohort(progress=progress)
    return compare.compare_runs(
        folders,
        None if data is None else Path(data),
        lams,
        Path(out),
        every_pair=pairs == "all",
        progress=progress,
    )


def _lams(lambdas: str | Sequence[float]) -> list[float]:
    text = lambdas if isinstance(lambdas, str) else ",".join(map(str, lambdas))
    return parse_lambdas(text)
