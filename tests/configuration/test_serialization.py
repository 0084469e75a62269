"""Configurations travel as JSON; a value that is not what it must be is named."""

import json
from pathlib import Path

import pytest

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.serialization import as_json, from_json, identity
from jaxreg.configuration.training import AutoencoderConfig, CohortConfig, RegistrationConfig
from jaxreg.errors import InputError


@pytest.mark.parametrize(
    "config",
    [
        RegistrationConfig(cohort=CohortConfig(data=Path("a/b"), spacing=2), init_from=Path("c")),
        AutoencoderConfig(),
        RegisterConfig(lam="auto", fixed_mask=Path("mask.nii")),
        RegisterConfig(lam=0.25, optimize_only=True, steps=3, loss="ngf"),
    ],
)
def test_a_configuration_comes_back_from_json_as_it_was(config):
    assert from_json(type(config), json.loads(json.dumps(as_json(config)))) == config


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"objective": {"mi_bins": "7"}}, 'expected int, got "7" for objective.mi_bins'),
        ({"objective": {"symmetric": 1}}, "expected bool, got 1 for objective.symmetric"),
        ({"cohort": {"spacing": "fine"}}, 'expected float, got "fine" for cohort.spacing'),
        ({"cohort": {"data": 3}}, "expected str, got 3 for cohort.data"),
        ({"network": {"stem": "x"}}, "expected one of 'fold', 'conv', got \"x\" for network.stem"),
        ({"network": None}, "expected an object for network"),
        ({"unknown": 1}, "fields unknown here: unknown"),
        ({"objective": {"lncc_window": 5}}, "--lncc-window: read only by"),
        ([1], r"expected an object, got \[1\]"),
    ],
)
def test_a_wrong_value_is_refused_by_field_wanted_and_got(values, reason):
    with pytest.raises(InputError, match=reason):
        from_json(RegistrationConfig, values)


@pytest.mark.parametrize("lam", ["most", True, [0.5]])
def test_a_lambda_that_is_neither_number_nor_auto_is_refused(lam):
    with pytest.raises(InputError, match="expected one of 'auto', float, got .* for lam"):
        from_json(RegisterConfig, {"lam": lam})


def test_an_identity_names_no_path_no_session_and_no_length():
    flat = identity(RegistrationConfig(cohort=CohortConfig(data=Path("a"))))
    assert not {"data", "steps", "workdir", "encoders", "init_from", "validation_pairs"} & set(flat)
    assert "convolution" not in flat
    assert flat["flip"] is True and flat["second_pass_fraction"] == 0.0
