"""The training loop of both stages: steps, checkpoints, logs, interruption.

What a stage is, it says by `Task`; the loop knows no loss and no network.
"""

import csv
import functools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tensorboardX import SummaryWriter
from tqdm import tqdm

from jaxreg.configuration import OptimizerConfig, SessionConfig
from jaxreg.errors import InputError
from jaxreg.training.checkpoint import Checkpoints, Meta


class TrainState(NamedTuple):
    """What a step changes."""

    step: jax.Array
    params: Any
    opt_state: Any


@dataclass(frozen=True)
class Task:
    """One stage, to the loop.

    Attributes:
        stage: `ae` or `reg`.
        config: the whole configuration, as JSON values.
        identity: what must agree for a run to be continued.
        defaults: what a stored identity means where it is silent, as runs of older versions are.
        params: initial trainable parameters.
        frozen: parameters that no step changes; saved beside the others.
        loss: (params, frozen, sample, key) → (loss, terms) of one sample.
        batches: the endless data iterator, with `get_state` and `set_state`.
        arrays: what the loss sees of a batch, where it is there; other entries describe it.
        describe: (batch, row) → words for the sample, in errors.
        validate: (params, frozen, step) → (scalars, RGB picture or None).
    """

    stage: str
    config: dict[str, Any]
    identity: dict[str, Any]
    defaults: dict[str, Any]
    params: Any
    frozen: Any
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    batches: Any
    arrays: tuple[str, ...]
    describe: Callable[[dict[str, np.ndarray], int], str]
    validate: Callable[[Any, Any, int], tuple[dict[str, float], np.ndarray | None]] | None


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, constant, cosine to 2 % over the last fifth of `steps`."""
    warmup = min(config.warmup_steps, steps // 2)
    decay = max(steps // 5, 1)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1)),
            optax.constant_schedule(config.learning_rate),
            optax.cosine_decay_schedule(config.learning_rate, decay, alpha=0.02),
        ],
        [warmup, steps - decay],
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Adam on gradients clipped by their global norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm), optax.adam(learning_rate(config, steps))
    )


def data_mesh(batch_size: int) -> jax.sharding.Mesh:
    """As many local devices as divide the batch, on the axis "data"; says so if not all."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    if count < len(devices):
        print(f"batch of {batch_size}: using {count} of {len(devices)} devices.")
    return jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=devices[:count])


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


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came, and the run is saved; `signum` says which."""

    def __init__(self, signum: int):
        """Keep the signal's number, for the exit code."""
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def run(
    task: Task, optimizer_config: OptimizerConfig, session: SessionConfig, workdir: Path
) -> None:
    """Train to `optimizer_config.steps`, from the newest checkpoint where there is one.

    Raises:
        InputError: the workdir holds another run, or the loss is not finite.
        Interrupted: after saving, on SIGINT or SIGTERM.
    """
    steps = optimizer_config.steps
    assert steps is not None
    optimizer = make_optimizer(optimizer_config, steps)
    checkpoints = Checkpoints(workdir)
    state = TrainState(jnp.zeros((), jnp.int32), task.params, optimizer.init(task.params))
    resumed = resume(task, checkpoints, state)
    if resumed is not None:
        state = resumed
        if int(state.step) >= steps:
            print(f"{workdir}: finished at step {int(state.step)}; nothing to do.")
            return
        print(f"resumed at step {int(state.step)}")
    mesh = data_mesh(optimizer_config.batch_size)
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    state, frozen = jax.device_put((state, task.frozen), replicated)
    step = make_step(task.loss, optimizer, mesh, optimizer_config.seed)
    _Loop(task, session, workdir, checkpoints, steps).run(state, frozen, step, split)


def resume(task: Task, checkpoints: Checkpoints, state: TrainState) -> TrainState | None:
    """The newest checkpoint's state, the data cursor set; None where there is no checkpoint."""
    if not checkpoints.steps():
        return None
    newest = checkpoints.steps()[-1]
    meta = checkpoints.meta(newest)
    require_same_run(checkpoints.folder.parent, meta, task)
    params = checkpoints.params(newest, {"trainable": state.params, "frozen": task.frozen})
    opt_state = checkpoints.optimizer(newest, state.opt_state)
    task.batches.set_state(meta.cursor)
    return TrainState(jnp.asarray(meta.step, jnp.int32), params["trainable"], opt_state)


def require_same_run(workdir: Path, meta: Meta, task: Task) -> None:
    """Raise InputError where the workdir's run differs from the one asked for."""
    if meta.stage != task.stage:
        raise InputError(f"{workdir}: holds a run of --stage={meta.stage}, not {task.stage}.")
    for name in sorted(set(meta.identity) | set(task.identity)):
        stored = meta.identity.get(name, task.defaults.get(name))
        asked = task.identity.get(name)
        if stored != asked:
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{workdir}: holds a run of another configuration; {flag}: expected {stored} "
                f"(stored), got {asked}. Use another --workdir."
            )


class _Loop:
    """One process's way through the steps, with what it keeps between them."""

    def __init__(self, task, session, workdir, checkpoints, steps):
        self.task, self.session, self.workdir = task, session, workdir
        self.checkpoints, self.steps = checkpoints, steps
        self.signum: int | None = None

    def run(self, state, frozen, step, split) -> None:
        start = int(state.step)
        previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        writer = SummaryWriter(str(self.workdir / "tensorboard"), purge_step=start)
        bar = tqdm(total=self.steps, initial=start, unit="step", dynamic_ncols=True, mininterval=1)
        try:
            for number in range(start, self.steps):
                batch = next(self.task.batches)
                arrays = {k: batch[k] for k in self.task.arrays if k in batch}
                state, metrics = step(state, frozen, jax.device_put(arrays, split))
                values = {k: float(v) for k, v in metrics.items()}
                self._require_finite(values, number, batch)
                bar.update()
                bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()}, refresh=False)
                self._after(state, frozen, number + 1, values, writer)
        finally:
            bar.close()
            writer.close()
            for signum, handler in previous.items():
                signal.signal(signum, handler)
        print(f"{self.workdir}: finished at step {self.steps}.")

    def _note(self, signum, frame):
        del frame
        self.signum = signum

    def _after(self, state, frozen, done, values, writer):
        last = done == self.steps
        if done % self.session.log_every == 0 or last:
            for name, value in values.items():
                writer.add_scalar(f"train/{name}", value, done)
        every = self.session.validate_every
        if self.task.validate is not None and every and (done % every == 0 or last):
            self._validate(state, frozen, done, writer)
        if done % self.session.checkpoint_every == 0 or last or self.signum:
            self._save(state, frozen, done)
        if self.signum and not last:
            print(
                f"\n{signal.Signals(self.signum).name}: saved step {done} in {self.workdir}; "
                "the same command continues.",
                file=sys.stderr,
            )
            raise Interrupted(self.signum)

    def _save(self, state, frozen, done):
        meta = Meta(
            self.task.stage,
            self.task.config,
            self.task.identity,
            self.task.batches.get_state(),
            done,
        )
        self.checkpoints.save(meta, {"trainable": state.params, "frozen": frozen}, state.opt_state)

    def _validate(self, state, frozen, done, writer):
        start = time.perf_counter()
        scalars, picture = self.task.validate(state.params, frozen, done)
        for name, value in scalars.items():
            writer.add_scalar(f"val/{name}", value, done)
        if picture is not None:
            writer.add_image("val/picture", picture, done, dataformats="HWC")
        append_row(self.workdir / "validation.csv", {"step": done, **scalars})
        words = ", ".join(f"{k} {v:.4f}" for k, v in scalars.items())
        tqdm.write(f"step {done}: {words} ({time.perf_counter() - start:.0f} s)")

    def _require_finite(self, values, number, batch):
        wrong = [k for k, v in values.items() if not np.isfinite(v)]
        if wrong:
            rows = len(batch[self.task.arrays[0]])
            samples = "; ".join(self.task.describe(batch, row) for row in range(rows))
            lam = f", mean λ {values['lam']:.3f}" if "lam" in values else ""
            raise InputError(
                f"step {number}: {', '.join(wrong)} is not finite ({samples}{lam}); "
                "the last checkpoint is kept."
            )


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a CSV by its `step`, replacing rows of that step or later."""
    rows = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if int(r["step"]) < row["step"]]
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, row])
    partial.replace(path)
