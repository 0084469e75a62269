"""`jaxreg eval` and eval.py: the λ sweep of a run, or the comparison of several."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxreg import distributed
from jaxreg.commands import flags
from jaxreg.commands.train import embedded_cohort
from jaxreg.configuration.evaluation import EvalConfig
from jaxreg.configuration.training import EMBEDDED
from jaxreg.data.cohort import read_cohort
from jaxreg.errors import InputError
from jaxreg.evaluation.compare_runs.compare import compare_runs
from jaxreg.evaluation.evaluate import evaluate, parse_lambdas, print_summary
from jaxreg.models.model import newest_run
from jaxreg.models.release import load_model
from jaxreg.progress import ShownProgress


def main(argv: Sequence[str]) -> None:
    """Evaluate a run; the network is rebuilt from its checkpoint, never from flags."""
    config = flags.parse(EvalConfig, argv, prog="eval.py")
    lams = parse_lambdas(config.lambdas)
    every_pair = config.pairs == "all"
    distributed.start(config.processes)
    if config.compare:
        if distributed.count() > 1:
            raise InputError("--compare: expected one process, got several; evaluate each first.")
        models = [load_model(run) for run in config.compare]
        if config.data is None and any(m.config.cohort.data in (None, EMBEDDED) for m in models):
            embedded_cohort()
        folder = config.workdir or Path("runs/compare")
        shown = ShownProgress(sys.stderr)
        compare_runs(
            config.compare, config.data, lams, folder, every_pair=every_pair, progress=shown
        )
        return
    found = distributed.broadcast_from_primary(
        lambda: str(config.workdir or newest_run(Path("runs")) or "")
    )
    workdir = Path(found) if found else None
    if workdir is None:
        raise InputError("runs: expected a registration run (train.py --stage=reg), found none.")
    evaluate_run(workdir, config.data, config.split or "test", lams, every_pair=every_pair)


def evaluate_run(
    workdir: Path, data: Path | None, split: str, lams: list[float], *, every_pair: bool = False
) -> dict[str, Any]:
    """Sweep a run over a split; results under <workdir>/eval/<split>."""
    model = load_model(workdir)
    cohort = read_cohort(data or model.config.cohort.data or embedded_cohort())
    folder = workdir / "eval" / split
    print(f"{workdir} at step {model.step}: {split} split of {cohort.folder}")
    summary = evaluate(
        model,
        workdir.name,
        cohort,
        split,
        lams,
        folder,
        every_pair=every_pair,
        progress=ShownProgress(sys.stderr),
    )
    print_summary(summary)
    print(f"results, summary and figures are in {folder}")
    return summary
