"""One training step, jitted and sharded over devices: one state, one step, one all-reduce."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxreg import distributed
from jaxreg.configuration.training import OptimizerConfig


class TrainState(NamedTuple):
    """What a step changes."""

    step: jax.Array
    params: Any
    opt_state: Any


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, constant, cosine to 2 % over the last `decay_fraction` of `steps`."""
    warmup = min(config.warmup_steps, steps // 2)
    decay = max(int(config.decay_fraction * steps), 1)
    warmup = min(warmup, steps - decay)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1)),
            optax.constant_schedule(config.learning_rate),
            optax.cosine_decay_schedule(config.learning_rate, decay, alpha=0.02),
        ],
        [warmup, steps - decay],
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Adam on gradients clipped by their global norm, with an average of the weights if wanted."""
    adam = optax.chain(
        optax.clip_by_global_norm(config.clip_norm), optax.adam(learning_rate(config, steps))
    )
    return _averaging(adam, config.weight_average) if config.weight_average else adam


class Averaged(NamedTuple):
    """The state of an optimiser, and a moving average of the weights that it has gone through."""

    inner: Any
    average: Any
    count: jax.Array


def _averaging(
    optimizer: optax.GradientTransformation, share: float
) -> optax.GradientTransformation:
    """The optimiser with `Averaged` as its state.

    In the first steps less of the average stays, so that it does not remember the random start:
    the mean of all weights so far, until `share` stays.
    """

    def init(params):
        return Averaged(optimizer.init(params), params, jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        updates, inner = optimizer.update(updates, state.inner, params)
        stays = jnp.minimum(share, state.count / (state.count + 1.0))
        average = jax.tree.map(
            lambda old, now, change: stays * old + (1 - stays) * (now + change),
            state.average,
            params,
            updates,
        )
        return updates, Averaged(inner, average, state.count + 1)

    return optax.GradientTransformation(init, update)


def kept_params(state: TrainState) -> Any:
    """The parameters that a run keeps as its network: the average where there is one."""
    return state.opt_state.average if isinstance(state.opt_state, Averaged) else state.params


def stored_state(state: TrainState) -> Any:
    """What a checkpoint holds of a state beside the parameters of the network and the step."""
    if not isinstance(state.opt_state, Averaged):
        return state.opt_state
    inner, _, count = state.opt_state
    return {"optimizer": inner, "count": count, "latest": state.params}


def restored_state(step: jax.Array, kept: Any, stored: Any, like: TrainState) -> TrainState:
    """The state whose parts `kept_params` and `stored_state` gave; `like` has its structure."""
    if not isinstance(like.opt_state, Averaged):
        return TrainState(step, kept, stored)
    state = Averaged(stored["optimizer"], kept, stored["count"])
    return TrainState(step, stored["latest"], state)


def data_mesh(batch_size: int) -> jax.sharding.Mesh:
    """As many devices as divide the batch, on the axis "data"; says so if not all.

    Process after process, each with the same number, so that a process's rows of a batch lie on its
    own devices.

    Raises:
        InputError: the batch cannot be shared evenly among the processes.
    """
    rows, available = distributed.rows_of(batch_size), jax.local_device_count()
    count = max(n for n in range(1, available + 1) if rows % n == 0)
    if count < available:
        whose = " of each process" if distributed.count() > 1 else ""
        print(f"batch of {batch_size}: using {count} of {available} devices{whose}.")
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    used = [d for start in range(0, len(devices), available) for d in devices[start:][:count]]
    return jax.make_mesh((len(used),), ("data",), (AxisType.Auto,), devices=used)


def make_step(task_loss, optimizer, mesh: jax.sharding.Mesh, seed: int):
    """The jitted step (state, frozen, batch) → (state, metrics), batch sharded over "data".

    Each device differentiates its share; one all-reduce averages loss, terms and gradients. The
    keys depend on seed, step and row alone, never on the devices.
    """

    def share(params, frozen, batch, keys):
        def mean_loss(params):
            losses, terms = jax.vmap(task_loss, (None, None, 0, 0))(params, frozen, batch, keys)
            return jnp.mean(losses), jax.tree.map(jnp.mean, terms)

        flat, unravel = ravel_pytree(jax.value_and_grad(mean_loss, has_aux=True)(params))
        return unravel(jax.lax.pmean(flat, "data"))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen, batch):
        rows = jax.tree.leaves(batch)[0].shape[0]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step), rows)
        (loss, terms), grads = jax.shard_map(
            share,
            mesh=mesh,
            in_specs=(P(), P(), P("data"), P("data")),
            out_specs=P(),
            check_vma=False,
        )(state.params, frozen, batch, keys)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(grads), **terms}
        return TrainState(state.step + 1, params, opt_state), metrics

    return step
