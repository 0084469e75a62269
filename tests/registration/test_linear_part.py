"""Which linear part a registration takes where that by segmentation is poor."""

from typing import Any

import numpy as np
import pytest

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid
from jaxreg.registration.deformable.deformation import Deformation
from jaxreg.registration.inputs import Subject
from jaxreg.registration.register import _better_linear_part, _Linear, _Told

NOTHING: Any = None


def linear(similarity: float) -> _Linear:
    still = np.zeros((2, 2, 2, 3), np.float32)
    before = Deformation(1.0, still, still, still[..., 0], similarity, 0.0, 0.0)
    return _Linear("a start", np.eye(4), Grid((2, 2, 2), np.eye(4)), "a grid", before, NOTHING)


@pytest.mark.parametrize(("by_intensities", "taken"), [(0.3, 0.3), (0.02, 0.05), (None, 0.05)])
def test_what_intensities_cannot_do_does_not_end_a_registration(by_intensities, taken):
    said: list[str] = []

    def find(fixed: Any, moving: Any) -> _Linear:
        if fixed.brain is not None:
            return linear(0.05)
        if by_intensities is None:
            raise InputError("the fields of view do not overlap.")
        return linear(by_intensities)

    brain: Any = "found"
    side = Subject(**{**dict.fromkeys(Subject._fields), "brain": brain})
    found = _better_linear_part(find, side, side, RegisterConfig(), _Told(said.append))
    assert found.before.similarity == taken
    failed = [line for line in said if "the fields of view do not overlap" in line]
    assert len(failed) == (by_intensities is None)
