"""An evaluation that is cut off goes on where it was saved, and ends in the same results."""

import csv
import dataclasses

import jax
import numpy as np
import pytest

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import CohortConfig, RegistrationConfig
from jaxreg.data.cohort import read_cohort
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.evaluation import evaluate as evaluation
from jaxreg.evaluation import partial_results
from jaxreg.evaluation.sweep import Score
from jaxreg.models.model import Model, init_params

LAMS = [0.2, 0.8]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cohort"
    subjects = {"train": 1, "test": 3}
    write_phantom_cohort(folder, shape=(24, 28, 20), spacing_mm=8.0, subjects=subjects)
    return read_cohort(folder)


def model_of(seed):
    """Random parameters whose warps are of a voxel or so."""
    config = RegistrationConfig(cohort=CohortConfig(), objective=ObjectiveConfig(loss="lncc"))
    params = init_params(jax.random.key(seed), config, None)
    noise = np.random.default_rng(seed)
    shaken = jax.tree.map(
        lambda leaf: np.asarray(leaf + noise.normal(0, 0.02, leaf.shape), np.float32), params
    )
    return Model(config, shaken, {}, 3, (8.0, 8.0, 8.0))


def run(model, cohort, folder):
    evaluation.evaluate(model, "run", cohort, "test", LAMS, folder, every_pair=True)


def results(folder):
    """All of results.csv but the seconds."""
    with (folder / "results.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def scored(monkeypatch):
    """The pairs that are scored, figures left out; every pair is saved."""
    seen = []
    original = evaluation.score_pair

    def score_pair(model, volumes, native, pair, lams):
        seen.append(pair)
        yield from original(model, volumes, native, pair, lams)

    monkeypatch.setattr(evaluation, "score_pair", score_pair)
    monkeypatch.setattr(evaluation.report, "write_figures", lambda *_: None)
    monkeypatch.setattr(partial_results, "SAVE_SECONDS", 0.0)
    return seen


def cut_off(model, cohort, folder, after, monkeypatch):
    """An evaluation that ends while it scores the pair after so many."""
    original = evaluation.score_pair
    pairs = []

    def score_pair(*arguments):
        pairs.append(arguments[3])
        if len(pairs) > after:
            raise KeyboardInterrupt
        yield from original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluation, "score_pair", score_pair)
        run(model, cohort, folder)


def test_an_evaluation_goes_on_and_ends_in_the_same_results(cohort, tmp_path, scored, monkeypatch):
    model = model_of(0)
    run(model, cohort, tmp_path / "whole")
    assert len(scored) == len(set(scored)) == 6
    cut_off(model, cohort, tmp_path / "cut", 4, monkeypatch)
    assert not (tmp_path / "cut" / "results.csv").exists()
    scored.clear()
    run(model, cohort, tmp_path / "cut")
    assert len(scored) == 3  # the two that were left, and the first, whose pictures are drawn
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["results.csv", "summary.json"]


def test_what_another_model_scored_is_not_used(cohort, tmp_path, scored, monkeypatch):
    cut_off(model_of(0), cohort, tmp_path, 4, monkeypatch)
    scored.clear()
    run(model_of(1), cohort, tmp_path)
    assert len(scored) == 6


def test_scores_of_other_structures_are_not_used(cohort, tmp_path, scored, monkeypatch):
    cut_off(model_of(0), cohort, tmp_path, 4, monkeypatch)
    scored.clear()
    first, *rest = sorted(cohort.structures)
    other = dataclasses.replace(cohort, structures={n: cohort.structures[n] for n in rest})
    run(model_of(0), other, tmp_path)
    assert len(scored) == 6
    assert cohort.structures[first] not in {row["structure"] for row in results(tmp_path)}


def test_a_damaged_file_is_said_and_its_pairs_are_scored_again(
    cohort, tmp_path, scored, monkeypatch, capsys
):
    cut_off(model_of(0), cohort, tmp_path, 4, monkeypatch)
    (left,) = tmp_path.glob(".so-far-*")
    left.write_bytes(left.read_bytes()[:-200])
    scored.clear()
    run(model_of(0), cohort, tmp_path)
    assert len(scored) == 6 and "not readable" in capsys.readouterr().out


def test_scores_are_read_as_they_were_written(tmp_path):
    scores = [
        Score("sub-é", "b", None, np.array([0.5, np.nan]), 0.0, 0.25, 1.5),
        Score("a", "b", 0.1, np.array([0.0, 1.0]), 2.0, 0.125, 0.0),
    ]
    partial_results.write(tmp_path / "scores.npz", scores)
    for got, wanted in zip(partial_results.read(tmp_path / "scores.npz"), scores, strict=True):
        assert got[:3] == wanted[:3] and got[4:] == wanted[4:]
        np.testing.assert_array_equal(got.dice, wanted.dice)
