"""How a velocity is found, as the settings ask for it."""

import pytest

from jaxreg.configuration.registration import DIRECT_RATE, REFINE_RATE, RegisterConfig
from jaxreg.registration.deformable.method import load_method, unguided


@pytest.mark.parametrize(
    ("settings", "steps", "rate"),
    [
        ({}, 16, REFINE_RATE),
        ({"refine": 7}, 7, REFINE_RATE),
        ({"extract": "never"}, 20, 0.01),
        ({"label_weight": 0.0}, 20, 0.01),
        ({"extract": "never", "refine": 7}, 7, 0.01),
        ({"extract": "never", "refine": 0}, 0, 0.01),
        ({"optimize_only": True}, 80, DIRECT_RATE),
        ({"optimize_only": True, "extract": "never"}, 80, DIRECT_RATE),
    ],
)
def test_a_refinement_without_segmentations_takes_shorter_steps(settings, steps, rate):
    method = load_method(RegisterConfig(**settings))
    assert (method.steps, method.rate) == (steps, rate)


def test_a_pair_in_which_no_brain_was_found_is_refined_as_without_segmentations():
    config = RegisterConfig()
    without = load_method(RegisterConfig(extract="never"))
    method = unguided(load_method(config), config)
    assert (method.steps, method.rate) == (without.steps, without.rate)
