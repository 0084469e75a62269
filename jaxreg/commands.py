"""What each console command does: flags in, a run or a sweep out."""

import dataclasses
from collections.abc import Sequence
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
    RegistrationConfig,
)
from jaxreg.data.cohort import read_cohort
from jaxreg.data.phantom import write_phantom_cohort
from jaxreg.errors import InputError, require_choice
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
