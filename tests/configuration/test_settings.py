"""The objective's settings: what cannot be meant is refused by name, what just can is taken."""

import math
from typing import Any

import pytest

from jaxreg.configuration.objective import LOSS_SPECS, ObjectiveConfig
from jaxreg.errors import InputError


@pytest.mark.parametrize(
    ("name", "refused", "taken"),
    [
        ("loss", ["MI", "", "ssd"], ["mi", "intra_lncc"]),
        ("regularizer", ["l1"], ["l2", "diffusion"]),
        ("endpoint_fraction", [-0.01, 1.01, math.nan], [0.0, 1.0]),
        ("squarings", [-1], [0]),
        ("mi_samples", [-1], [0]),
        ("mi_margin", [-1], [0]),
        ("mi_bins", [1], [2]),
        ("lmi_patch", [1], [2]),
        ("mind_radius", [-1], [0]),
        ("mind_dilation", [0], [1]),
        ("nce_locations", [1], [2]),
        ("lncc_window", [1, 2, 4, 8], [3, 5, 9]),
        ("ngf_eta", [0.0, -1.0, math.nan], [1e-9]),
        ("nce_temperature", [0.0, -1.0, math.nan], [1e-9]),
        ("lncc_epsilon", [0.0, -1.0, math.nan], [1e-9]),
        ("label_weight", [-0.5, math.nan], [0.0, 3.0]),
        ("taps", ["", "3", "0,", "01", "-1"], ["0", "2,0", "0,1,2"]),
    ],
)
def test_the_bounds_of_each_setting(name, refused, taken):
    readers = [loss for loss, spec in LOSS_SPECS.items() if name in spec.settings]
    loss = {"loss": readers[0]} if readers else {}
    for value in refused:
        with pytest.raises(InputError, match="--" + name.replace("_", "-")):
            ObjectiveConfig(**{**loss, name: value})
    for value in taken:
        assert getattr(ObjectiveConfig(**{**loss, name: value}), name) == value


def test_the_defaults_are_the_papers():
    config = ObjectiveConfig()
    assert (config.loss, config.regularizer, config.squarings) == ("nce_mi", "diffusion", 7)
    assert (config.mi_bins, config.nce_temperature, config.taps) == (32, 0.07, "0,1,2")
    assert config.label_weight == config.endpoint_fraction == 0 and not config.symmetric


def test_taps_are_scales_in_order_each_once():
    assert ObjectiveConfig(taps="2,0,2").scales == (0, 2)


@pytest.mark.parametrize(("loss", "voxels"), [("lncc", 4), ("mind", 5), ("ngf", 1), ("mi", 0)])
def test_how_far_a_voxels_similarity_sees(loss, voxels):
    own: dict[str, Any] = {
        "lncc": {"lncc_window": 9},
        "mind": {"mind_radius": 2, "mind_dilation": 3},
    }
    assert ObjectiveConfig(loss=loss, **own.get(loss, {})).reach == voxels
    assert ObjectiveConfig(loss="intra_lncc", lncc_window=9).reach == 4
