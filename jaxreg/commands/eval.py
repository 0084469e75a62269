"""`jaxreg eval` and eval.py: the λ sweep of a run, or the comparison of several."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxreg.commands import flags
from jaxreg.configuration.evaluation import EvalConfig
from jaxreg.progress import ShownProgress


def main(argv: Sequence[str]) -> None:
    """Evaluate a run; the network is rebuilt from its checkpoint, never from flags."""
    config = flags.parse(EvalConfig, argv, prog="jaxreg eval")
    from jaxreg import distributed
    from jaxreg.evaluation.evaluate import parse_lambdas
    from jaxreg.evaluation.run import compare_runs, evaluate

    parse_lambdas(config.lambdas)  # what is wrong with it is said before the processes meet
    distributed.start(config.processes)
    progress = ShownProgress(sys.stderr)
    if config.compare:
        compare_runs(
            config.compare,
            data=config.data,
            lambdas=config.lambdas,
            pairs=config.pairs,
            out=config.workdir or Path("runs/compare"),
            progress=progress,
        )
        return
    evaluate(
        config.workdir,
        data=config.data,
        split=config.split or "test",
        lambdas=config.lambdas,
        pairs=config.pairs,
        progress=progress,
    )
