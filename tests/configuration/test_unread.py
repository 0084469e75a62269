"""One policy: a setting that nothing reads is refused with the reason, and is never stored."""

from pathlib import Path
from typing import Any

import pytest

from jaxreg.cli import main
from jaxreg.configuration.evaluation import EvalConfig
from jaxreg.configuration.objective import LOSS_SPECS, ObjectiveConfig
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.serialization import as_json, from_json, identity
from jaxreg.configuration.training import (
    NetworkConfig,
    RegistrationConfig,
    SessionConfig,
    registration_preset,
)
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


def test_a_preset_gives_a_loss_only_what_it_reads():
    assert registration_preset("miccai", "nce").objective.nce_locations == 1025
    assert registration_preset("miccai", "mi").objective == ObjectiveConfig("mi", symmetric=True)
