"""The step and its schedule: values worked out by hand, and two devices against one."""

import csv
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxreg.configuration.training import OptimizerConfig
from jaxreg.training.step import (
    TrainState,
    data_mesh,
    kept_params,
    learning_rate,
    make_optimizer,
    make_step,
    restored_state,
    stored_state,
)
from jaxreg.training.validation_log import append_row

CONFIG = OptimizerConfig(learning_rate=0.1, warmup_steps=10)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (0, 0.0),
        (5, 0.05),
        (10, 0.1),
        (80, 0.1),
        (90, 0.1 * (0.02 + 0.98 / 2)),  # half a cosine: the mean of both ends
        (100, 0.002),
    ],
)
def test_learning_rate_rises_stays_and_falls_to_2_percent(step, wanted):
    schedule = learning_rate(CONFIG, steps=100)
    assert float(jnp.asarray(jax.jit(schedule)(step))) == pytest.approx(wanted, rel=1e-5)  # float32


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_learning_rate_of_a_short_run_is_never_above_its_peak_nor_always_0(steps):
    rates = [float(jnp.asarray(learning_rate(CONFIG, steps)(i))) for i in range(steps)]
    assert 0 < max(rates) <= 0.1 * (1 + 1e-6)


def test_the_learning_rate_may_fall_for_longer():
    schedule = learning_rate(dataclasses.replace(CONFIG, decay_fraction=0.5), steps=100)
    assert float(jnp.asarray(schedule(50))) == pytest.approx(0.1)
    assert float(jnp.asarray(schedule(75))) == pytest.approx(0.1 * (0.02 + 0.98 / 2), rel=1e-5)
    always = learning_rate(dataclasses.replace(CONFIG, decay_fraction=1.0), steps=100)
    assert float(jnp.asarray(always(0))) == pytest.approx(0.1)


def test_the_network_is_a_moving_average_of_the_weights():
    """The mean of all weights at first, then one of which a share stays."""
    config = dataclasses.replace(CONFIG, warmup_steps=0, weight_average=0.5)
    optimizer = make_optimizer(config, steps=20)
    start = {"w": jnp.ones(3), "b": jnp.zeros(2)}
    state = TrainState(jnp.zeros((), jnp.int32), start, optimizer.init(start))
    expected, stays = None, (0, 0.5, 0.5, 0.5)
    for share in stays:
        gradient = jax.tree.map(lambda x: x + 1, state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        state = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
        now = jax.device_get(state.params)
        if expected is None:
            expected = now
        expected = jax.tree.map(lambda a, b, s=share: s * a + (1 - s) * b, expected, now)
    kept = kept_params(state)
    trees = kept, expected, state.params
    for got, wanted, latest in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        assert not np.allclose(got, latest)
    again = restored_state(state.step, kept, stored_state(state), state)
    for one, other in zip(*map(jax.tree.leaves, (again, state)), strict=True):
        np.testing.assert_array_equal(one, other)


def _loss(params, frozen, sample, key):
    """A quadratic with noise, so that each row's key counts."""
    noise = 0.1 * jax.random.normal(key, sample["x"].shape)
    error = sample["x"] @ params["w"] + params["b"] - frozen["target"] + jnp.mean(noise)
    return jnp.mean(error**2), {"error": jnp.mean(jnp.abs(error))}


def _mesh(count):
    return jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=jax.devices()[:count])


def _setup(count, rows=4):
    mesh, optimizer = _mesh(count), make_optimizer(CONFIG, steps=20)
    params = {"w": jnp.linspace(-1, 1, 6).reshape(3, 2), "b": jnp.zeros(2)}
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    state, frozen = jax.device_put((state, {"target": jnp.ones(2)}), NamedSharding(mesh, P()))
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    batch = jax.device_put({"x": x}, NamedSharding(mesh, P("data")))
    return make_step(_loss, optimizer, mesh, seed=3), state, frozen, batch


def test_two_devices_train_like_one():
    results = []
    for count in (1, 2):
        step, state, frozen, batch = _setup(count)
        history = []
        for _ in range(5):
            state, metrics = step(state, frozen, batch)
            history.append({k: float(v) for k, v in metrics.items()})
        assert int(state.step) == 5
        results.append((history, jax.device_get(state.params)))
    one, two = (jax.tree.leaves(r) for r in results)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # order of the mean over rows


def test_a_step_is_adam_on_the_mean_gradient_of_the_rows():
    step, state, frozen, batch = _setup(2)
    params, x = jax.device_get((state.params, batch["x"]))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 0), len(x))

    def mean_loss(params):
        target = {"target": jnp.ones(2)}
        losses = [_loss(params, target, {"x": x[i]}, keys[i])[0] for i in range(len(x))]
        return sum(losses) / len(x)

    loss, gradient = jax.value_and_grad(mean_loss)(params)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    _, metrics = step(state, frozen, batch)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)  # float32
    assert float(metrics["gradient_norm"]) == pytest.approx(float(norm), rel=1e-5)


def test_a_step_on_two_devices_has_one_all_reduce():
    step, state, frozen, batch = _setup(2)
    text = step.lower(state, frozen, batch).compile().as_text() or ""
    assert len(re.findall(r"\ball-reduce(?:-start)?\(", text)) == 1
    others = r"\b(?:all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
    assert not re.findall(others, text)


@pytest.mark.parametrize(("batch", "used"), [(1, 1), (3, 1)])
def test_a_batch_that_two_devices_cannot_share_says_how_many_work(batch, used, capsys):
    assert data_mesh(batch).size == used
    assert capsys.readouterr().out == f"batch of {batch}: using {used} of 2 devices.\n"


def test_a_batch_that_all_devices_share_says_nothing(capsys):
    assert data_mesh(4).size == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("step", "steps"),
    [(4, ["1", "2", "3", "4"]), (3, ["1", "2", "3"]), (2, ["1", "2"]), (1, ["1"])],
)
def test_a_row_replaces_those_of_its_step_and_later(step, steps, tmp_path):
    path = tmp_path / "validation.csv"
    for number in (1, 2, 3):
        append_row(path, {"step": number, "dice": 0.5})
    append_row(path, {"step": step, "dice": 0.75})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == steps
    assert [row["dice"] for row in rows] == ["0.5"] * (len(steps) - 1) + ["0.75"]
    assert [p.name for p in tmp_path.iterdir()] == ["validation.csv"]
