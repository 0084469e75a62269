"""`jaxreg train` and train.py: stage 1 (--stage=ae) or stage 2 (--stage=reg)."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from jaxreg import distributed
from jaxreg.configuration import training
from jaxreg.configuration.objective import COMPARED_LOSSES, CONTRASTIVE_LOSSES
from jaxreg.configuration.training import (
    DEFAULT_STEPS,
    EMBEDDED,
    EMBEDDED_STEPS,
    PRESETS,
    AutoencoderConfig,
    RegistrationConfig,
)
from jaxreg.data.cohort import read_cohort
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.errors import InputError, require_choice
from jaxreg.training.autoencoder import autoencoder_task
from jaxreg.training.loop import run
from jaxreg.training.registration import registration_task

STAGES = {"ae": AutoencoderConfig, "reg": RegistrationConfig}
_HELP = f"""usage: train.py --stage=ae|reg [--preset={"|".join(PRESETS)}] [flags of the stage]

  --stage    ae: one autoencoder per contrast, without pairs; reg: the registration network,
             with --loss=all one after another with each of {", ".join(COMPARED_LOSSES)},
             into <workdir>/<loss>. No default.
  --preset   paper (ISMRM 2022), or miccai (ContraReg: 1024 negatives, symmetric). (default: paper)
"""


def main(argv: Sequence[str]) -> None:
    """Train a stage; continues where the workdir's run stopped."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--stage")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--loss")
    known, flags = parser.parse_known_args(argv)
    if {"-h", "--help"} & set(flags):
        _print_help(STAGES if known.stage not in STAGES else (known.stage,))
        return
    if known.stage is None:
        raise InputError("--stage: expected ae (autoencoders) or reg (registration), got none.")
    require_choice("stage", known.stage, tuple(STAGES))
    if known.stage == "reg" and known.loss == "all":
        _train_all(known.preset, flags)
        return
    if known.loss is not None:
        flags = [*flags, f"--loss={known.loss}"]
    train_stage(known.stage, parse(known.stage, known.preset, flags))


def parse(stage: str, preset: str, flags: Sequence[str]) -> Any:
    """The configuration of a stage that flags ask for."""
    return tyro.cli(
        tyro.conf.OmitArgPrefixes[STAGES[stage]],  # pyright: ignore[reportInvalidTypeArguments]
        prog=f"train.py --stage={stage}",
        args=list(flags),
        default=training.preset(stage, preset),
    )


def _train_all(preset: str, flags: Sequence[str]) -> None:
    """Each compared loss into <workdir>/<loss>, one after another; finished ones are passed."""
    for loss in COMPARED_LOSSES:
        config = parse("reg", preset, [*flags, f"--loss={loss}"])
        workdir = (config.session.workdir or Path("runs/all")) / loss
        session = dataclasses.replace(config.session, workdir=workdir)
        encoders = config.encoders if loss in CONTRASTIVE_LOSSES else None
        train_stage("reg", dataclasses.replace(config, session=session, encoders=encoders))


def train_stage(stage: str, config: Any) -> Path:
    """Resolve data, steps and workdir, print the settings in force, train; returns the workdir."""
    distributed.start(config.session.processes)
    embedded = config.cohort.data is None
    cohort = read_cohort(embedded_cohort() if embedded else config.cohort.data)
    short = embedded and config.optimizer.steps is None
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
        print("embedded phantom cohort: it shows that everything works and is no benchmark.")
    if short:
        print("ends within 15 minutes on two cores.")
    run(task, config.optimizer, config.session, workdir)
    return workdir


def embedded_cohort() -> Path:
    """The folder of the embedded phantom cohort, made (by process 0) where it is not there yet."""
    return Path(distributed.from_first(lambda: str(_embedded_cohort())))


def _embedded_cohort() -> Path:
    if not (EMBEDDED / "participants.tsv").is_file():
        print(f"making the embedded cohort in {EMBEDDED} (once)", flush=True)
        EMBEDDED.parent.mkdir(parents=True, exist_ok=True)
        write_phantom_cohort(EMBEDDED, shape=(48, 48, 48), spacing_mm=4.0)
    return EMBEDDED


def _print_help(stages) -> None:
    print(_HELP)
    for stage in stages:
        config = tyro.conf.OmitArgPrefixes[STAGES[stage]]  # pyright: ignore[reportInvalidTypeArguments]
        print(tyro.extras.get_parser(config, prog=f"train.py --stage={stage}").format_help())


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
