"""What the checks say of a registration as a whole."""

import pytest

from jaxreg.registration.output.checks import Number, verdict_of


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
