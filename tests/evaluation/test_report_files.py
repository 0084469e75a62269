"""What an evaluation says in the end: means, errors, the best λ, seconds."""

import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.errors import InputError
from jaxreg.evaluation import sweep
from jaxreg.evaluation.report import summarize
from jaxreg.evaluation.sweep import Score


def scores_of(values):
    """(fixed, moving, λ) → Dice of one structure, as scores; 0.4 without registration."""
    plain = {
        (fixed, moving, None): 0.4 * dice / dice for (fixed, moving, _), dice in values.items()
    }
    return [
        Score(fixed, moving, lam, np.array([dice]), 0.0, 0.0, 1.0)
        for (fixed, moving, lam), dice in {**plain, **values}.items()
    ]


def test_the_error_is_over_subjects_and_among_equals_the_smoothest_is_best():
    values = {
        ("a", "b", 0.2): 0.50,
        ("a", "c", 0.2): 0.70,
        ("b", "a", 0.2): 0.90,
        ("a", "b", 0.8): 0.60,
        ("a", "c", 0.8): 0.60,
        ("b", "a", 0.8): 0.90,
    }
    summary = summarize(scores_of(values))
    assert summary["best_lam"] == 0.8 and summary["pairs"] == 3
    for row in summary["lambdas"]:
        assert row["dice_mean"] == pytest.approx(0.7)
        assert row["dice_sem"] == pytest.approx(np.std([0.6, 0.9], ddof=1) / np.sqrt(2))
    alone = summarize(scores_of({("a", "b", 0.2): 0.5}))
    assert alone["lambdas"][0]["dice_sem"] == 0


def test_a_pair_that_shares_no_structure_counts_in_all_but_dice():
    values = {("a", "b", 0.2): 0.5, ("b", "a", 0.2): np.nan, ("c", "a", 0.2): 0.7}
    row = summarize(scores_of(values))["lambdas"][0]
    assert row["dice_mean"] == pytest.approx(0.6)
    assert row["dice_std"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    with pytest.raises(InputError, match="structure"):
        summarize(scores_of({("b", "a", 0.2): np.nan}))


def test_the_last_chunk_of_a_sweep_takes_no_longer_a_lam(monkeypatch):
    """Eleven λ in chunks of six, each of which takes six seconds: one second a λ in both."""
    clock = itertools.count(0, 6)
    counted = SimpleNamespace(perf_counter=lambda: float(next(clock)))  # no other thread reads it
    monkeypatch.setattr(sweep, "time", counted)
    image, lams = jnp.zeros((4, 4, 4, 1)), [i / 10 for i in range(11)]
    filled = jnp.zeros((6, 2, 2, 2, 3))
    chunks = [(lams[:6], filled), (lams[6:], filled)]
    monkeypatch.setattr(sweep, "velocities", lambda *_, **__: iter(chunks))
    chunks = list(sweep.displacements(None, None, image, image, lams, squarings=1))
    assert [len(c[0]) for c in chunks] == [len(c[1]) for c in chunks] == [6, 5]
    assert [c[2] for c in chunks] == [1.0, 1.0]
