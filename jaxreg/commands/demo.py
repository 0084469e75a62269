"""`jaxreg demo`: a pair by the weights that ship; then a cohort, both stages, the λ sweep."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxreg.commands import flags
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.training import (
    AutoencoderConfig,
    CohortConfig,
    OptimizerConfig,
    RegistrationConfig,
    SessionConfig,
)
from jaxreg.progress import ShownProgress


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Register a simulated pair in a minute, then run the whole chain in 10 minutes and more.

    The chain is a cohort, both stages of training, the λ sweep and the figures. With --pair-only it
    ends after the pair, which says whether the installation works.
    """

    out: Path = Path("runs/demo")
    """Folder for the cohort, the runs and the figures."""
    pair_only: bool = False
    """End after the pair."""
    ae_steps: int = 300
    """Steps of stage 1."""
    reg_steps: int = 1200
    """Steps of stage 2."""


def main(argv: Sequence[str]) -> None:
    """Register a pair, train both stages on its cohort, sweep λ; each part says where to look."""
    config = flags.parse(DemoConfig, argv, prog="jaxreg demo")
    from jaxreg.data.synthetic.demo import write_demonstration_cohort
    from jaxreg.evaluation.run import evaluate
    from jaxreg.io.atomic import require_writable
    from jaxreg.training.train import train

    progress = ShownProgress(sys.stderr)

    require_writable(config.out)
    start = time.monotonic()
    data = config.out / "cohort"
    if not (data / "participants.tsv").is_file():
        print(f"making a cohort in {data}", flush=True)
        config.out.mkdir(parents=True, exist_ok=True)
        with progress.phase("cohort", announced=False):
            write_demonstration_cohort(data)
    print("Such a cohort shows that everything works; it is no benchmark.")
    register_first_pair(data, config.out / "pair")
    print(
        "The installation works. These brains are simulated from one template, so the estimated "
        "Dice, which was learned on real ones, and the Dice of their labels may lie apart."
    )
    if config.pair_only:
        return
    print("training on the cohort: 10 minutes on two idle cores, more on busy ones", flush=True)
    cohort = CohortConfig(data=data)
    session = SessionConfig(workdir=config.out / "ae", validate_every=config.ae_steps)
    steps = OptimizerConfig(steps=config.ae_steps)
    train(AutoencoderConfig(cohort, steps, session), progress=progress)
    session = SessionConfig(workdir=config.out / "nce_mi", validate_every=config.reg_steps // 2)
    steps = OptimizerConfig(steps=config.reg_steps)
    registration = RegistrationConfig(cohort, steps, session, encoders=config.out / "ae")
    workdir = train(registration, progress=progress)
    summary = evaluate(workdir, data=data, progress=progress)
    minutes = (time.monotonic() - start) / 60
    print(
        f"look at {workdir / 'eval' / 'test' / 'figure4.png'}: mean Dice of the test pairs rose "
        f"from {summary['no_registration']['dice_mean']:.3f} to {summary['best_dice_mean']:.3f} "
        f"at λ = {summary['best_lam']:g} ({minutes:.1f} minutes)."
    )


def register_first_pair(data: Path, out: Path) -> None:
    """Register two subjects of the test split by the bundled network."""
    from jaxreg.data.cohort import neighbour_pairs, read_cohort
    from jaxreg.registration.clock import Clock
    from jaxreg.registration.run import register_files

    cohort = read_cohort(data)
    fixed, moving = neighbour_pairs(cohort.members("test", "T1w"), cohort.members("test", "T2w"))[0]
    labels = {"fixed": cohort.file(fixed, "dseg"), "moving": cohort.file(moving, "dseg")}
    register_files(
        cohort.file(fixed, "T1w"),
        cohort.file(moving, "T2w"),
        out,
        RegisterConfig(fixed_labels=labels["fixed"], moving_labels=labels["moving"]),
        overwrite=True,
        clock=Clock(ShownProgress(sys.stderr)),
    )
