"""The processes of one job (`jax.distributed`): who this one is, and what all must agree on.

One process, the usual case, is process 0 of 1: everything here is then the identity, and asks JAX
nothing. `start` comes before JAX touches a device. What processes exchange travels as bytes, so it
arrives as it was sent.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, UInt8

from jaxreg.configuration.training import ProcessConfig
from jaxreg.errors import InputError, first_line

T = TypeVar("T")

_LAUNCHERS = {"SLURM_STEP_NUM_TASKS": "SLURM", "OMPI_COMM_WORLD_SIZE": "Open MPI"}
"""Where `srun` and `mpirun` say how many processes they started."""
_LOST = r"[Gg]loo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|coordination service|heartbeat"
"""In the first line of what JAX raises where a process is gone."""


def require_platform() -> None:
    """Raise InputError where JAX finds none of the platforms that JAX_PLATFORMS asks for."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked in ("", "cpu"):
        return
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or "no such device, or JAX was installed without it"
        raise InputError(
            f"JAX_PLATFORMS={asked}: JAX does not start ({reason}); unset it, or set it to cpu."
        ) from error


def rows_of(batch_size: int) -> int:
    """How many rows of a batch are this process's own.

    Raises:
        InputError: the batch cannot be shared evenly among the processes.
    """
    if batch_size % count():
        raise InputError(
            f"--batch-size: expected a multiple of the {count()} processes, got {batch_size}."
        )
    return batch_size // count()


def start(config: ProcessConfig) -> None:
    """Join the job that the flags, SLURM or Open MPI describe; nothing where there is none.

    From here on process 0 alone speaks: the others' standard output is dropped.

    Raises:
        InputError: the coordinator or another process did not answer in time, or JAX finds none of
            the platforms that JAX_PLATFORMS asks for.
    """
    launched = any(int(os.environ.get(name) or 1) > 1 for name in _LAUNCHERS)
    if config.coordinator is None and not launched:
        require_platform()
        return
    address = None if config.coordinator == "auto" else config.coordinator
    try:
        jax.distributed.initialize(
            address,
            config.num_processes,
            config.process_id,
            initialization_timeout=config.process_timeout,
            heartbeat_timeout_seconds=config.process_timeout,
            shutdown_timeout_seconds=config.process_timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--coordinator: the processes did not come together ({first_line(error)})."
        ) from error
    require_platform()
    if index() > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    wait("start")  # Gloo connects at the first collective, and waits only half a minute for that
    print(f"{count()} processes, {jax.device_count()} devices in all")


def count() -> int:
    """How many processes the job has."""
    return jax.process_count()


def index() -> int:
    """Which of them this one is, from 0."""
    return jax.process_index()


def share(items: Sequence[T]) -> list[T]:
    """This process's part of `items`: one after the other's, sizes that differ by 1 at most."""
    size, larger = divmod(len(items), count())
    first = index() * size + min(index(), larger)
    return list(items[first : first + size + (index() < larger)])


def broadcast_from_primary(compute: Callable[[], Any]) -> Any:
    """The JSON value of `compute`, which runs on process 0 alone."""
    if count() == 1:
        return compute()
    sent = json.dumps(compute()).encode() if index() == 0 else b""
    return json.loads(_broadcast(np.frombuffer(sent, np.uint8)).tobytes())


def arrays_from_first(compute: Callable[[], Any], like: Any) -> Any:
    """The arrays of `compute`, which runs on process 0 alone, shaped and typed as `like`."""
    if count() == 1:
        return compute()
    leaves, structure = jax.tree.flatten(like)
    sent = jax.tree.leaves(compute()) if index() == 0 else []
    flat = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in sent]
    received = _broadcast(np.concatenate(flat) if flat else np.zeros(0, np.uint8))
    arrays, at = [], 0
    for leaf in leaves:
        size = int(np.prod(leaf.shape, dtype=np.int64)) * np.dtype(leaf.dtype).itemsize
        arrays.append(received[at : at + size].copy().view(leaf.dtype).reshape(leaf.shape))
        at += size
    return jax.tree.unflatten(structure, arrays)


def gather(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "m k"]:
    """The rows of all processes, process after process, on each of them; n may differ."""
    if count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.int32(len(rows)))
    padded = np.zeros((int(counts.max()), rows.shape[1]), rows.dtype)
    padded[: len(rows)] = rows
    received = multihost_utils.process_allgather(padded.reshape(-1).view(np.uint8))
    blocks = np.asarray(received).view(rows.dtype).reshape(count(), *padded.shape)
    return np.concatenate([b[:n] for b, n in zip(blocks, counts, strict=True)])


def wait(name: str) -> None:
    """Go on when every process is here; `name` is one of each place in the program."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def local(tree: Any) -> Any:
    """Arrays that lie whole on every device, as arrays of one device of this process."""
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def label() -> str:
    """How an error line names this process; empty where it is the only one."""
    return f"process {index()} of {count()}: " if _joined() else ""


def lost(error: Exception) -> str | None:
    """What to say of an error that another process's end caused; None for any other error."""
    reason = first_line(error)
    if not _joined() or not re.search(_LOST, reason):
        return None
    return (
        f"another process of the job has ended or fallen silent ({reason}); "
        "the same commands start it again from its last checkpoint."
    )


def leave(code: int) -> int:
    """The exit code of a failure; one of several processes ends here and now, with its sockets.

    JAX waits for the other processes at the end, which would be waiting for those that wait for us.
    """
    if _joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _joined() -> bool:
    """Whether this is one of several processes; wakes no device."""
    return jax.distributed.is_initialized() and count() > 1


def _broadcast(sent: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, " m"]:
    """The bytes that process 0 sends, on every process."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    whole = sent if index() == 0 else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(whole), np.uint8)
