"""The TensorBoard log: every run writes a file of its own, and a restart voids later steps."""

import time
from types import SimpleNamespace

import killing
import pytest

from jaxreg.training import tensorboard
from jaxreg.training.tensorboard import EventLog


@pytest.fixture
def one_second(monkeypatch):
    """Clocks of which the whole seconds stand still."""
    ticks = iter(range(10**6))
    clocks = SimpleNamespace(
        time=lambda: 1.7e9 + next(ticks) * 1e-6,
        time_ns=lambda: 1_700_000_000 * 10**9 + next(ticks),
        monotonic=time.monotonic,
    )
    monkeypatch.setattr(tensorboard, "time", clocks)


def test_runs_started_within_one_second_keep_each_others_events(tmp_path, one_second):
    for first_step in (1, 3, 4):
        log = EventLog(tmp_path / "tensorboard", first_step=first_step)
        for step in (first_step, first_step + 1):
            log.scalars(step, {"loss": 10.0 * first_step + step})
        log.close()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3
    expected = {1: 11.0, 2: 12.0, 3: 33.0, 4: 44.0, 5: 45.0}
    assert killing.curve(tmp_path) == {("loss", step): value for step, value in expected.items()}
