"""What the checks say of a registration as a whole."""

import pytest

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.registration.output.checks import Number, numbers_of, verdict_of
from jaxreg.registration.register import Registration


def number(name, status):
    return Number(name, "1", status, "what it means")


@pytest.mark.parametrize(
    ("statuses", "warnings", "state", "reasons"),
    [
        (("pass", "info"), (), "green", ()),
        (("pass", "warn"), (), "amber", ("n1",)),
        (("pass", "pass"), ("the head is turned",), "amber", ("1 warning",)),
        (("warn", "fail", "pass"), ("a", "b"), "red", ("n1", "n0", "2 warnings")),
    ],
)
def test_the_worst_number_decides_and_a_warning_is_no_green(statuses, warnings, state, reasons):
    numbers = [number(f"n{i}", status) for i, status in enumerate(statuses)]
    verdict = verdict_of(numbers, warnings)
    assert (verdict.state, verdict.reasons) == (state, reasons)
    assert str(verdict).startswith("checked: ") and "passed" not in str(verdict)
    assert all(reason in str(verdict) for reason in reasons)


VALUES = {
    "affine_determinant": 1.1,
    "mask_overlap": 0.95,
    "estimated_dice": 0.75,
    "estimated_dice_low": 0.70,
    "estimated_dice_high": 0.80,
    "estimated_dice_affine": 0.62,
    "lam": 0.5,
    "similarity_affine": 0.13,
    "similarity": 0.4,
    "folds_percent": 0.0,
    "jacobian_min": 0.05,
    "jacobian_max": 4.49,
    "displacement_mean_mm": 2.5,
    "displacement_max_mm": 9.2,
    "inverse_consistency_mm": 0.4,
}


def lines(config=RegisterConfig(), **changed):  # noqa: B008
    """The numbers of a registration by name, by default of a deformable one."""
    unread = dict.fromkeys(Registration._fields)
    result = Registration._make((unread | {"config": config, "curve": ()}).values())
    return {n.name: n for n in numbers_of(result, VALUES | changed)}


@pytest.mark.parametrize("name", ["determinant of the affine", "det J in the mask"])
def test_a_volume_change_says_which_volume_is_divided_by_which(name):
    assert "volume of the moving" in lines()[name].note
    assert "by that of the fixed one" in lines()[name].note


def test_a_small_determinant_is_called_usual_by_what_validation_pairs_have():
    shown = lines()["det J in the mask"]
    assert shown.status == "pass" and "validation pairs have -0.09 to 0.05" in shown.note
    assert lines(jacobian_min=0.0)["det J in the mask"].status == "warn"
    assert lines(jacobian_max=10.5)["det J in the mask"].status == "warn"


def test_the_estimated_dice_is_said_in_plain_words():
    note = lines()["estimated Dice"].note
    assert "how well the structures of both brains most likely overlap" in note
    assert "linear" not in note  # an overlap that the linear start was found by is no baseline


@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        ({}, {0.70: "pass", 0.57: "warn", 0.44: "fail"}),
        ({"transform": "affine"}, {0.50: "pass", 0.44: "warn", 0.29: "fail"}),
        ({"transform": "rigid"}, {0.50: "pass", 0.44: "warn", 0.29: "fail"}),
        ({"same_subject": True}, {0.74: "pass", 0.63: "warn", 0.45: "fail"}),
    ],
)
def test_one_subject_has_to_overlap_more_than_two(settings, statuses):
    for estimate, status in statuses.items():
        shown = lines(RegisterConfig(**settings), estimated_dice=estimate)["estimated Dice"]
        assert shown.status == status
