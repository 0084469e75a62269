"""`jaxreg eval` and eval.py: the λ sweep of a run, or the comparison of several."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from jaxreg import distributed
from jaxreg.commands.train import embedded_cohort
from jaxreg.configuration.training import EMBEDDED, ProcessConfig
from jaxreg.data.cohort import SPLITS, read_cohort
from jaxreg.errors import InputError, require_choice
from jaxreg.evaluation.compare_runs.compare import compare_runs
from jaxreg.evaluation.evaluate import evaluate, parse_lambdas, print_summary
from jaxreg.models.model import newest_run
from jaxreg.models.release import load_model


@dataclass(frozen=True)
class EvalConfig:
    """Register the pairs of a split at every λ and score them (Dice, folds, SDlogJ)."""

    workdir: Path | None = None
    """Registration run, default the newest in runs/; with --compare the output folder, default
    runs/compare."""
    data: Path | None = None
    """Folder of a prepared cohort; default the one of the training run."""
    split: str = "test"
    """Split that is scored: train, val or test; --compare takes val to choose λ and test."""
    lambdas: str = "0:1:0.1"
    """FIRST:LAST:STEP (both ends in) or A,B,…, within [0, 1]."""
    pairs: str = "neighbours"
    """neighbours (sorted list, each with the next, last with first) or all (ordered pairs)."""
    compare: tuple[Path, ...] = ()
    """Registration runs to compare: Figures 2 to 4, and a table with statistics."""
    processes: tyro.conf.OmitArgPrefixes[ProcessConfig] = field(default_factory=ProcessConfig)


def main(argv: Sequence[str]) -> None:
    """Evaluate a run; the network is rebuilt from its checkpoint, never from flags."""
    config = tyro.cli(EvalConfig, prog="eval.py", args=list(argv))
    require_choice("split", config.split, SPLITS)
    require_choice("pairs", config.pairs, ("neighbours", "all"))
    lams = parse_lambdas(config.lambdas)
    every_pair = config.pairs == "all"
    distributed.start(config.processes)
    if config.compare:
        if config.split != "test":
            raise InputError("--split: not read with --compare, which takes val and test.")
        if distributed.count() > 1:
            raise InputError("--compare: expected one process, got several; evaluate each first.")
        models = [load_model(run) for run in config.compare]
        if config.data is None and any(m.config.cohort.data in (None, EMBEDDED) for m in models):
            embedded_cohort()
        folder = config.workdir or Path("runs/compare")
        compare_runs(config.compare, config.data, lams, folder, every_pair=every_pair)
        return
    found = distributed.from_first(lambda: str(config.workdir or newest_run(Path("runs")) or ""))
    workdir = Path(found) if found else None
    if workdir is None:
        raise InputError("runs: expected a registration run (train.py --stage=reg), found none.")
    evaluate_run(workdir, config.data, config.split, lams, every_pair=every_pair)


def evaluate_run(
    workdir: Path, data: Path | None, split: str, lams: list[float], *, every_pair: bool = False
) -> dict[str, Any]:
    """Sweep a run over a split; results under <workdir>/eval/<split>."""
    model = load_model(workdir)
    cohort = read_cohort(data or model.config.cohort.data or embedded_cohort())
    folder = workdir / "eval" / split
    print(f"{workdir} at step {model.step}: {split} split of {cohort.folder}")
    summary = evaluate(model, workdir.name, cohort, split, lams, folder, every_pair=every_pair)
    print_summary(summary)
    print(f"results, summary and figures are in {folder}")
    return summary
