"""`jaxreg train` and train.py: stage 1 (ae), stage 2 (reg) or the segmentation (seg)."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from jaxreg.commands import flags
from jaxreg.configuration.objective import COMPARED_LOSSES
from jaxreg.configuration.training import (
    AutoencoderConfig,
    Preset,
    RegistrationConfig,
    SegmentationConfig,
    registration_preset,
)
from jaxreg.configuration.unread import flag_of
from jaxreg.errors import InputError, require_choice
from jaxreg.progress import ShownProgress

Config = TypeVar("Config", AutoencoderConfig, RegistrationConfig, SegmentationConfig)

STAGES = {"ae": AutoencoderConfig, "reg": RegistrationConfig, "seg": SegmentationConfig}
_OF_OTHER_FLAGS = ("endpoint_fraction", "validation_pairs", "teacher_weight")
"""Settings that are read or not by what other flags say, whatever the loss."""
_PRESETS = "|".join(get_args(Preset))
_HELP = f"""usage: jaxreg train --stage=ae|reg|seg [--preset={_PRESETS}] [flags of the stage]

  --stage    ae: one autoencoder per contrast, without pairs; reg: the registration network,
             with --loss=all one after another with each of {", ".join(COMPARED_LOSSES)},
             into <workdir>/<loss>; seg: the segmentation of any contrast, from label maps.
             No default.
  --preset   For --stage=reg: paper (ISMRM 2022), or miccai (ContraReg: 1024 negatives, symmetric).
             (default: paper)
"""


def main(argv: Sequence[str]) -> None:
    """Train a stage; continues where the workdir's run stopped."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--stage")
    parser.add_argument("--preset")
    parser.add_argument("--loss")
    known, rest = parser.parse_known_args(argv)
    if {"-h", "--help"} & set(rest):
        _print_help(STAGES if known.stage not in STAGES else (known.stage,))
        return
    if known.stage is None:
        raise InputError(
            "--stage: expected ae (autoencoders), reg (registration) or seg (segmentation), "
            "got none."
        )
    require_choice("stage", known.stage, tuple(STAGES))
    _refuse_flags_of_other_stages(known.stage, argv)
    if known.stage == "ae":
        _train(parse(AutoencoderConfig(), rest))
    elif known.stage == "seg":
        _train(parse(SegmentationConfig(), rest))
    elif known.loss == "all":
        _train_all(known.preset or "paper", rest)
    else:
        _train(parse_registration(known.preset or "paper", known.loss, rest))


def _train(config: AutoencoderConfig | RegistrationConfig | SegmentationConfig) -> None:
    from jaxreg.training.train import train

    train(config, progress=ShownProgress(sys.stderr))


def parse_registration(preset: str, loss: str | None, argv: Sequence[str]) -> RegistrationConfig:
    """The configuration of stage 2 that flags ask for."""
    known = RegistrationConfig().objective.loss if loss is None else loss
    default = registration_preset(preset, known)
    return parse(default, argv)


def parse(default: Config, argv: Sequence[str]) -> Config:
    """A stage's configuration with what flags change in it."""
    stage = next(name for name, kind in STAGES.items() if isinstance(default, kind))
    return flags.parse(type(default), argv, prog=f"jaxreg train --stage={stage}", default=default)


def _refuse_flags_of_other_stages(stage: str, argv: Sequence[str]) -> None:
    """Raise InputError for a flag that other stages read, but not this one."""
    readers = {"--preset": ["reg"], "--loss": ["reg"]}
    for name, kind in STAGES.items():
        for flag in {flag_of(setting) for setting in _settings_of(kind())} - {"--loss"}:
            readers.setdefault(flag, []).append(name)
    for given, _ in _flags_in(argv):
        flag = given if given in readers else f"--{given.removeprefix('--no-')}"
        if stage not in readers.get(flag, [stage]):
            others = " and ".join(f"--stage={name}" for name in readers[flag])
            raise InputError(f"{given}: read only by {others}, not by --stage={stage}.")


def _train_all(preset: str, argv: Sequence[str]) -> None:
    """Each compared loss into <workdir>/<loss>, one after another; finished ones are passed.

    A setting that some of the losses read goes to those.
    """
    for loss in COMPARED_LOSSES:
        default = registration_preset(preset, loss)
        unread = {flag_of(name) for name in (*default.objective.unread, *default.unread)}
        unread -= {flag_of(name) for name in _OF_OTHER_FLAGS}
        own = [arg for flag, args in _flags_in(argv) if flag not in unread for arg in args]
        config = parse(default, own)
        workdir = (config.session.workdir or Path("runs/all")) / loss
        session = dataclasses.replace(config.session, workdir=workdir)
        _train(dataclasses.replace(config, session=session))


def _flags_in(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Arguments by flag: (its name as `--some-name`, it and the values behind it)."""
    found: list[tuple[str, list[str]]] = []
    for arg in argv:
        if arg.startswith("--"):
            found.append((arg.partition("=")[0].replace("_", "-"), [arg]))
        elif found:
            found[-1][1].append(arg)
        else:
            found.append(("", [arg]))
    return found


def _settings_of(config: Any) -> list[str]:
    """The names of a configuration's settings, those of nested configurations included."""
    names: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        names += _settings_of(value) if dataclasses.is_dataclass(value) else [field.name]
    return names


def _print_help(stages) -> None:
    print(_HELP)
    for stage in stages:
        with contextlib.suppress(SystemExit):
            parse(STAGES[stage](), ["--help"])
