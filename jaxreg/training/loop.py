"""The training loop of all stages: steps, checkpoints, logs, interruption.

What a stage is, it says by `Task`; the loop knows no loss and no network.
"""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxreg import distributed
from jaxreg.configuration.training import OptimizerConfig, SessionConfig
from jaxreg.errors import InputError
from jaxreg.models.checkpoint import Checkpoints, Meta
from jaxreg.models.run_folder import claimed_by_first
from jaxreg.progress import SILENT, Progress, write_line
from jaxreg.training.own_logger import Logger, OwnLogger
from jaxreg.training.step import (
    TrainState,
    data_mesh,
    kept_params,
    make_optimizer,
    make_step,
    restored_state,
    stored_state,
)
from jaxreg.training.tensorboard import EventLog
from jaxreg.training.validation_log import append_row, forget_rows_after, read_rows

VALIDATION = "validation.csv"
_STOP = "stop"


@dataclass(frozen=True)
class Task:
    """One stage, to the loop.

    Attributes:
        stage: `ae`, `reg` or `seg`.
        config: the whole configuration, as JSON values.
        identity: what must agree for a run to be continued.
        defaults: what a stored identity means where it is silent, as runs of older versions are.
        params: initial trainable parameters.
        frozen: parameters that no step changes; saved beside the others.
        resident: arrays beside `frozen` in what the loss sees; neither saved nor trained.
        loss: (params, frozen, sample, key) → (loss, terms) of one sample.
        batches: the endless data iterator, with `get_state` and `set_state`.
        arrays: what the loss sees of a batch, where it is there; other entries describe it.
        describe: (batch, row) → words for the sample, in errors.
        validate: (params, frozen, step) → (scalars, RGB picture or None).
        begin: what the first process does with the workdir before it trains.
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
    begin: Callable[[Path], None] = lambda workdir: None
    resident: dict[str, Any] = field(default_factory=dict)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came, and the run is saved; `signum` says which."""

    def __init__(self, signum: int):
        """Keep the signal's number, for the exit code."""
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def run(
    task: Task,
    optimizer_config: OptimizerConfig,
    session: SessionConfig,
    workdir: Path,
    *,
    progress: Progress = SILENT,
    log: Logger | None = None,
) -> None:
    """Train to `optimizer_config.steps`, from the newest whole checkpoint where there is one.

    `log` gets the scalars too, in the first process.

    Raises:
        InputError: the workdir holds another run or cannot be written, or the loss is not finite.
        Interrupted: after saving, on SIGINT or SIGTERM.
    """
    steps = optimizer_config.steps
    assert steps is not None
    optimizer = make_optimizer(optimizer_config, steps)
    checkpoints = Checkpoints(workdir)
    state = TrainState(jnp.zeros((), jnp.int32), task.params, optimizer.init(task.params))
    stored = distributed.broadcast_from_primary(checkpoints.steps)
    resumed = resume(task, checkpoints, state)
    if _is_finished(task, session, workdir, resumed, steps):
        return
    mesh = data_mesh(optimizer_config.batch_size)
    with claimed_by_first(workdir):
        if distributed.broadcast_from_primary(checkpoints.steps) != stored:
            # Another process trained here until the folder could be claimed.
            resumed = resume(task, checkpoints, state)
            if _is_finished(task, session, workdir, resumed, steps):
                return
        start = 0 if resumed is None else int(resumed.step)
        steps = max(steps, start)
        checkpoints.require_writable()
        if distributed.index() == 0:
            task.begin(workdir)
        if resumed is not None:
            state = resumed
            print(f"resumed at step {start}")
            checkpoints.set_aside_after(start)
            if distributed.index() == 0:
                forget_rows_after(workdir / VALIDATION, start)
        loop = _Loop(task, session, workdir, checkpoints, steps, log)
        _train(loop, state, optimizer, optimizer_config, mesh, progress)


def _is_finished(
    task: Task, session: SessionConfig, workdir: Path, resumed: TrainState | None, steps: int
) -> bool:
    """Whether nothing is left to do of a run of `steps`, which is then said."""
    start = 0 if resumed is None else int(resumed.step)
    if start < steps or validation_owed(task, session, workdir, start, start):
        return False
    print(f"{workdir}: finished at step {start}; nothing to do.")
    return True


def _train(
    loop: "_Loop", state: TrainState, optimizer, config: OptimizerConfig, mesh, progress
) -> None:
    """Put the state and the step on the devices, and go through the steps."""
    task = loop.task
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    state, frozen = jax.device_put(jax.tree.map(np.asarray, (state, task.frozen)), replicated)
    loss = _carrying_stop(task.loss) if distributed.count() > 1 else task.loss
    step = make_step(loss, optimizer, mesh, config.seed)
    if task.resident:
        step = _seeing(step, jax.device_put(task.resident, replicated))
    shown = progress if distributed.index() == 0 else SILENT
    loop.run(state, frozen, step, split, shown)


def resume(task: Task, checkpoints: Checkpoints, state: TrainState) -> TrainState | None:
    """The newest whole checkpoint's state, the data cursor set; None without a checkpoint."""
    meta = checkpoints.newest()
    if meta is None:
        return None
    require_same_run(checkpoints.folder.parent, meta, task)
    params = checkpoints.params(meta.step, {"trainable": state.params, "frozen": task.frozen})
    stored = checkpoints.optimizer(meta.step, stored_state(state))
    task.batches.set_state(meta.cursor)
    step = jnp.asarray(meta.step, jnp.int32)
    return restored_state(step, params["trainable"], stored, state)


def validation_owed(
    task: Task, session: SessionConfig, workdir: Path, step: int, steps: int
) -> bool:
    """Whether a run of `steps` that was cut off at `step` lacks the validation of that step."""
    every = session.validate_every
    if task.validate is None or not every or not step or (step % every and step < steps):
        return False
    written = distributed.broadcast_from_primary(
        lambda: [r["step"] for r in read_rows(workdir / VALIDATION)]
    )
    return str(step) not in written


_FLAGS = {
    "data_sha256": "data",
    "structures": "data",
    "spacing_mm": "spacing",
    "encoders_sha256": "encoders",
    "encoder_stem": "encoders",
    "init_from_sha256": "init-from",
    "teacher_sha256": "teacher",
}
"""The flags behind what a task adds to its identity."""


_DECIDING = ("loss", "conditioning")
"""Settings on which it depends what others there are: they are compared first."""


def require_same_run(workdir: Path, meta: Meta, task: Task) -> None:
    """Raise InputError where the workdir's run differs from the one asked for."""
    if meta.stage != task.stage:
        raise InputError(f"{workdir}: holds a run of --stage={meta.stage}, not {task.stage}.")
    names = set(meta.identity) | set(task.identity)
    for name in sorted(names, key=lambda name: (name not in _DECIDING, name)):
        stored = meta.identity.get(name, task.defaults.get(name))
        asked = task.identity.get(name)
        if stored != asked:
            flag = "--" + _FLAGS.get(name, name).replace("_", "-")
            raise InputError(
                f"{workdir}: holds a run of another configuration; {flag}: expected {stored} "
                f"(stored), got {asked}. Use another --workdir."
            )


def _seeing(step, resident):
    """`step` with the resident arrays beside the frozen ones."""
    return lambda state, frozen, batch: step(state, {**frozen, **resident}, batch)


def _carrying_stop(loss):
    """`loss` with the wish to stop that each process puts into its rows among the terms.

    The step's all-reduce averages it with everything else, so all processes see it after the same
    step, and nothing more is sent.
    """

    def carrying(params, frozen, sample, key):
        total, terms = loss(params, frozen, {k: v for k, v in sample.items() if k != _STOP}, key)
        return total, {**terms, _STOP: sample[_STOP]}

    return carrying


class _Stop(Exception):
    """A signal came during a validation, which is made up for when the run goes on."""


class _Loop:
    """One process's way through the steps, with what it keeps between them."""

    def __init__(self, task, session, workdir, checkpoints, steps, log):
        self.task, self.session, self.workdir = task, session, workdir
        self.checkpoints, self.steps = checkpoints, steps
        self.first = distributed.index() == 0
        self.signum: int | None = None
        self.validating = False
        self.saved: int | None = None
        self.own = OwnLogger(log)

    def run(self, state, frozen, step, split, progress) -> None:
        start = int(state.step)
        previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        log = EventLog(self.workdir / "tensorboard", first_step=start + 1) if self.first else None
        try:
            self.saved = start
            with progress.bar(total=self.steps, name="train", unit="steps", done=start) as bar:
                self._steps(state, frozen, step, split, log, bar)
        finally:
            if log is not None:
                log.close()
            for signum, handler in previous.items():
                signal.signal(signum, handler)
        print(f"{self.workdir}: finished at step {self.steps}.")

    def _steps(self, state, frozen, step, split, log, bar) -> None:
        start = int(state.step)
        if validation_owed(self.task, self.session, self.workdir, start, self.steps):
            self._validate(state, frozen, start, log)
        for number in range(start, self.steps):
            batch = next(self.task.batches)
            state, metrics = step(state, frozen, self._placed(batch, split))
            values = {k: float(v) for k, v in metrics.items()}
            stop = values.pop(_STOP, 0.0) > 0 or (distributed.count() == 1 and self.signum)
            self._require_finite(values, number, batch)
            bar.update()
            bar.note(values)
            self._after(state, frozen, number + 1, values, log, stop)

    def _placed(self, batch, split):
        """This process's rows of a batch as its part of the global one."""
        arrays = {k: batch[k] for k in self.task.arrays if k in batch}
        if distributed.count() > 1:
            rows = len(next(iter(arrays.values())))
            arrays[_STOP] = np.full(rows, self.signum is not None, np.float32)
        return {k: jax.make_array_from_process_local_data(split, v) for k, v in arrays.items()}

    def _note(self, signum, frame):
        del frame
        self.signum = signum
        if self.validating and distributed.count() == 1:
            self.validating = False  # a second signal must not break off the saving
            raise _Stop

    def _after(self, state, frozen, done, values, log, stop):
        last = done == self.steps
        if log is not None and (done % self.session.log_every == 0 or last):
            self._tell(log, done, {f"train/{name}": value for name, value in values.items()})
        if done % self.session.checkpoint_every == 0 or last or stop:
            self._save(state, frozen, done, log)
        if stop and not last:
            self._leave(done)
        every = self.session.validate_every
        if self.task.validate is not None and every and (done % every == 0 or last):
            self._validate(state, frozen, done, log)

    def _tell(self, log, done, values):
        log.scalars(done, values)
        self.own.scalars(done, values)

    def _leave(self, done):
        signum = self.signum or signal.SIGTERM  # of several processes, another one was told
        if self.first:
            print(
                f"\n{signal.Signals(signum).name}: saved step {done} in {self.workdir}; "
                "the same command continues.",
                file=sys.stderr,
            )
        raise Interrupted(signum)

    def _save(self, state, frozen, done, log):
        if self.saved == done:
            return
        if log is not None:
            log.flush()
        meta = Meta(
            self.task.stage,
            self.task.config,
            self.task.identity,
            self.task.batches.get_state(),
            done,
        )
        params = {"trainable": kept_params(state), "frozen": frozen}
        self.checkpoints.save(meta, params, stored_state(state))
        self.saved = done

    def _validate(self, state, frozen, done, log):
        """Score, log and append to validation.csv, whose row says that all is there."""
        assert self.task.validate is not None
        start = time.perf_counter()
        try:
            self.validating = True
            parameters = distributed.local((kept_params(state), frozen))
            scalars, picture = self.task.validate(*parameters, done)
        except _Stop:
            self._save(state, frozen, done, log)
            self._leave(done)
        finally:
            self.validating = False
        if log is not None:
            self._tell(log, done, {f"val/{name}": value for name, value in scalars.items()})
            if picture is not None:
                log.image(done, "val/picture", picture)
            log.flush()
            append_row(self.workdir / VALIDATION, {"step": done, **scalars})
            words = ", ".join(f"{k} {v:.4f}" for k, v in scalars.items())
            write_line(f"step {done}: {words} ({time.perf_counter() - start:.0f} s)")

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
