"""One policy: a setting that nothing reads is refused with the reason, and is never stored."""

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest

import jaxreg
from jaxreg.cli import main
from jaxreg.commands import train
from jaxreg.configuration.evaluation import EvalConfig
from jaxreg.configuration.objective import COMPARED_LOSSES, LOSS_SPECS, ObjectiveConfig
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.serialization import as_json, from_json, identity
from jaxreg.configuration.training import (
    NetworkConfig,
    RegistrationConfig,
    SessionConfig,
    registration_preset,
)
from jaxreg.configuration.unread import flag_of
from jaxreg.errors import InputError

ONE_LAM = NetworkConfig(conditioning="none", lam=0.5)
LOSS_SETTINGS = sorted({name for spec in LOSS_SPECS.values() for name in spec.settings})


def other_than_default(name):
    default = getattr(ObjectiveConfig(), name)
    return "0" if isinstance(default, str) else 3 if isinstance(default, int) else default / 2


@pytest.mark.parametrize("name", LOSS_SETTINGS)
def test_a_setting_of_a_loss_is_taken_by_its_losses_and_refused_by_the_others(name):
    value: dict[str, Any] = {name: other_than_default(name)}
    for loss, spec in LOSS_SPECS.items():
        if name in spec.settings:
            assert as_json(ObjectiveConfig(loss=loss, **value))["loss"] == loss
            continue
        flag = "--" + name.replace("_", "-")
        with pytest.raises(InputError, match=f"{flag}: read only by .*, not by --loss={loss}"):
            ObjectiveConfig(loss=loss, **value)


@pytest.mark.parametrize("loss", LOSS_SPECS)
def test_what_is_stored_of_a_loss_is_what_it_reads_and_gives_the_same_configuration(loss):
    config = RegistrationConfig(objective=ObjectiveConfig(loss=loss))
    stored = as_json(config)
    assert set(LOSS_SETTINGS) & set(stored["objective"]) == set(LOSS_SPECS[loss].settings)
    assert set(LOSS_SETTINGS) & set(identity(config)) == set(LOSS_SPECS[loss].settings)
    assert ("encoders" in stored) == LOSS_SPECS[loss].contrastive
    assert from_json(RegistrationConfig, stored) == config


def refused_by(make, reason):
    with pytest.raises(InputError, match=reason):
        make()


def test_settings_of_stage_2_that_others_leave_unread():
    ends = ObjectiveConfig(endpoint_fraction=0.2)
    refused_by(
        lambda: RegistrationConfig(network=ONE_LAM, objective=ends),
        "--endpoint-fraction: not read with --conditioning=none",
    )
    refused_by(
        lambda: RegistrationConfig(objective=ObjectiveConfig(loss="mi"), encoders=Path("runs/ae")),
        "--encoders: read only by nce and nce_mi, not by --loss=mi",
    )
    refused_by(
        lambda: RegistrationConfig(session=SessionConfig(validate_every=0), validation_pairs=3),
        "--validation-pairs: not read with --validate-every=0",
    )
    refused_by(lambda: NetworkConfig(lam=0.5), "--lam: read only with --conditioning=none")
    assert "endpoint_fraction" not in as_json(RegistrationConfig(network=ONE_LAM))["objective"]
    assert "lam" not in identity(RegistrationConfig()) and identity(
        RegistrationConfig(network=ONE_LAM)
    )["lam"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        ({}, {"steps": 80}, "--steps: read only with --optimize-only"),
        ({}, {"loss": "lncc"}, "--loss: read only with --optimize-only"),
        ({}, {"spacing": 2.0}, "--spacing: read only with --optimize-only"),
        ({"optimize_only": True}, {"domains": "T1w,T2w"}, "--domains: not read with --optimize"),
        ({"transform": "rigid"}, {"steps": 80}, "--steps: not read with --transform rigid"),
        ({"transform": "affine"}, {"optimize_only": True}, "--optimize-only: not read with"),
    ],
)
def test_settings_of_a_registration_that_its_kind_does_not_read(kind, given, reason):
    assert not set(given) & {k for k, v in as_json(RegisterConfig(**kind)).items() if v is not None}
    refused_by(lambda: RegisterConfig(**kind, **given), reason)


def test_the_defaults_of_direct_optimisation_stand_once():
    assert RegisterConfig(optimize_only=True).direct == ("lncc", 80, 2.0, 0.8)
    own = RegisterConfig(optimize_only=True, loss="mi", steps=5, spacing=4.0, lam=0.5)
    assert own.direct == ("mi", 5, 4.0, 0.5)


def test_a_comparison_reads_no_split():
    refused_by(
        lambda: EvalConfig(split="test", compare=(Path("a"), Path("b"))),
        "--split: not read with --compare",
    )


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--vary"], "--vary: read only by --stage=reg"),
        (["--pose-fraction=0.5"], "--pose-fraction: read only by --stage=reg"),
        (["--no-symmetric"], "--no-symmetric: read only by --stage=reg"),
        (["--loss", "lncc"], "--loss: read only by --stage=reg"),
        (["--preset=miccai"], "--preset: read only by --stage=reg"),
        (["--validation_pairs=2"], "--validation-pairs: read only by --stage=reg"),
    ],
)
def test_stage_1_refuses_the_flags_of_stage_2(flags, reason, capsys):
    assert main(["train", "--stage=ae", *flags]) == 2
    assert reason in capsys.readouterr().err


def test_all_losses_read_the_weight_of_a_teacher_and_refuse_it_without_one(monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(train, "_train", trained.append)
    argv = ["train", "--stage=reg", "--loss=all", "--teacher-weight=4"]
    assert main([*argv, "--teacher=bundled"]) == 0
    assert [config.objective.teacher_weight for config in trained] == [4.0] * len(COMPARED_LOSSES)
    assert main(argv) == 2
    assert "--teacher-weight: read only with --teacher" in capsys.readouterr().err


def test_a_preset_gives_a_loss_only_what_it_reads():
    assert registration_preset("miccai", "nce").objective.nce_locations == 1025
    assert registration_preset("miccai", "mi").objective == ObjectiveConfig("mi", symmetric=True)


def settings_of(config, prefix=""):
    """(dotted name, default) of every setting of a configuration."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field


def stage_defaults():
    return {stage: kind() for stage, kind in train.STAGES.items()}


def flags_of(stage):
    return {flag_of(name): (value, f) for name, value, f in settings_of(stage_defaults()[stage])}


OWN = [(stage, flag) for stage in train.STAGES for flag in flags_of(stage)]
OTHERS = [
    (stage, flag)
    for stage in train.STAGES
    for other in train.STAGES
    for flag in flags_of(other)
    if flag not in flags_of(stage)
]
TEXTS = {
    "--domains": "FLAIR,PDw",
    "--channels": "8,16",
    "--loss": "mind",
    "--taps": "0,1",
    "--coordinator": "auto",
    "--logger": "module:function",
}
JOB = ["--coordinator=host:1234", "--num-processes=2", "--process-id=1"]


def given_otherwise(flag, default, field):
    """Arguments that set a flag to something else than its default."""
    if flag in ("--num-processes", "--process-id"):
        return JOB
    if isinstance(default, bool):
        return [f"--no-{flag[2:]}" if default else flag]
    choices = [c for c in get_args(field.type) if c != default and isinstance(c, str)]
    if choices:
        return [f"{flag}={choices[0]}"]
    if isinstance(default, int):
        return [f"{flag}={default + 2}"]
    if isinstance(default, float) or "float" in str(field.type):
        return [f"{flag}={0.25 if default != 0.25 else 0.5}"]
    return [f"{flag}={TEXTS.get(flag, '7')}"]


@pytest.mark.parametrize(("stage", "flag"), sorted(set(OTHERS)))
def test_a_flag_of_another_stage_is_refused_with_the_stages_that_read_it(stage, flag, capsys):
    assert main(["train", f"--stage={stage}", f"{flag}=1"]) == 2
    err = capsys.readouterr().err
    readers = [other for other in train.STAGES if flag in flags_of(other)]
    named = " and ".join(f"--stage={other}" for other in readers)
    assert f"{flag}: read only by {named}, not by --stage={stage}." in err


@pytest.mark.parametrize(("stage", "flag"), OWN)
def test_a_flag_of_training_is_in_force_or_refused_with_the_reason(stage, flag):
    default = stage_defaults()[stage]
    value, field = flags_of(stage)[flag]
    argv = given_otherwise(flag, value, field)
    try:
        if flag == "--loss":
            found = train.parse_registration("paper", argv[0].partition("=")[2], [])
        else:
            found = train.parse(default, argv)
    except InputError as refusal:
        assert re.match(rf"{flag}: (not read|read only) ", str(refusal))
        return
    assert as_json(found) != as_json(default)


SOURCES = {
    "ae": ["training/autoencoder.py"],
    "reg": [
        "training/registration.py",
        "training/encoders.py",
        "losses/*.py",
        "models/model.py",
        "pair.py",
    ],
    "seg": ["training/segmentation.py", "configuration/training.py"],
}
SHARED = ["training/train.py", "training/loop.py", "training/step.py", "distributed.py"]


@pytest.mark.parametrize(("stage", "flag"), OWN)
def test_a_flag_of_training_is_read_by_its_stage(stage, flag):
    """Some module of the stage asks a configuration for the setting."""
    package = Path(jaxreg.__path__[0])
    files = [file for glob in (*SOURCES[stage], *SHARED) for file in package.glob(glob)]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    asked = {
        node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }
    name = flag[2:].replace("-", "_")
    assert {"domains": "domain_pair", "taps": "scales"}.get(name, name) in asked
