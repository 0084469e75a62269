"""Pairs on a Dask cluster: `distributed` is used here alone.

What goes over the wire are dictionaries of text and numbers, a kilobyte a pair, and the name of one
function; Dask wraps them in its own serialisation. Images and networks are read where they are
used, from files that all workers see.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxreg import runtime
from jaxreg.errors import EnvironmentFailure, InputError, first_line

_IN_FLIGHT = 5000
"""Jobs that the scheduler knows at a time; a million at once would cost it gigabytes."""
_TIMEOUT_S = 30
_WORKER_TIMEOUT_S = 600
"""Workers that a batch system starts may stand in its queue."""


def run_jobs(
    address: str,
    run: Callable[[dict[str, Any]], dict[str, Any]],
    jobs: Mapping[str, dict[str, Any]],
    *,
    say: Callable[[str], None] = print,
) -> Iterator[tuple[str, dict[str, Any] | BaseException]]:
    """(name, outcome) of each job in the order in which they end; of a job that failed, its error.

    `run` is a module's function, which gives a job's outcome. `address` is that of a scheduler
    (tcp://HOST:PORT), or of its file. A worker that dies costs only what it was working on: Dask
    gives that to another, until three have died of it.

    Raises:
        InputError: `distributed` is not installed.
        EnvironmentFailure: nobody answers, no worker comes, or the scheduler is gone.
    """
    distributed, named = _distributed(), f"{run.__module__}:{run.__qualname__}"
    with _client(distributed, address) as client:
        _await_a_worker(client, address, say)
        waiting = iter(jobs.items())
        names: dict[str, str] = {}

        def submit(count: int) -> list[Any]:
            futures = []
            for _, (name, job) in zip(range(count), waiting, strict=False):
                futures.append(client.submit(run_prepared, named, job, pure=False))
                names[futures[-1].key] = name
            return futures

        running = distributed.as_completed(submit(_IN_FLIGHT), loop=client.loop)
        for future in running:
            if future.cancelled():
                raise _gone(address)
            error = future.exception()
            if isinstance(error, distributed.KilledWorker):
                error = EnvironmentFailure(f"its workers died (memory, time limit): {error}")
            yield names.pop(future.key), future.result() if error is None else error
            running.update(submit(1))


def _await_a_worker(client: Any, address: str, say: Callable[[str], None]) -> None:
    """Say how many workers there are, and wait for the first, as long as a queue may take."""
    try:
        count = len(client.scheduler_info(n_workers=-1)["workers"])
    except OSError as error:  # it has died since the client connected
        raise _gone(address) from error
    wait = "" if count else f"; waiting {_WORKER_TIMEOUT_S} s at most for the first one"
    say(f"{address}: {count} workers so far{wait}")
    try:
        client.wait_for_workers(1, timeout=_WORKER_TIMEOUT_S)
    except TimeoutError as error:
        raise EnvironmentFailure(
            f"--cluster: {address} had no worker for {_WORKER_TIMEOUT_S} s; start workers, and "
            "give the same command again."
        ) from error
    except OSError as error:
        raise _gone(address) from error


def _gone(address: str) -> EnvironmentFailure:
    return EnvironmentFailure(f"--cluster: {address} is gone; the same command continues.")


def run_prepared(named: str, job: dict[str, Any]) -> dict[str, Any]:
    """A job's outcome, on a worker, by the function that `named` names (module:function).

    Looking the function up imports JAX, so the environment is set before.
    """
    runtime.prepare()
    return pkgutil.resolve_name(named)(job)


def require_cluster(address: str) -> None:
    """Refuse an address that no scheduler can have, before anything else is done.

    Raises:
        InputError: Dask is not installed, or neither an address nor a file.
        EnvironmentFailure: a scheduler's file that is not there.
    """
    _distributed()
    if "://" in address or Path(address).is_file():
        return
    if re.fullmatch(r"[^/]*:\d*", address) or Path(address).is_dir():
        wanted = "expected tcp://HOST:PORT or a scheduler file"
        raise InputError(f"--cluster: {wanted}, got {address!r}.")
    raise EnvironmentFailure(
        f"--cluster: {address}: no such file; the scheduler has not started, or has ended. `dask "
        f"scheduler --scheduler-file {address}` starts one."
    )


def _client(distributed: Any, address: str) -> Any:
    """A client of the scheduler at an address or of a scheduler's file."""
    where = {"address": address} if "://" in address else {"scheduler_file": address}
    try:
        return distributed.Client(**where, timeout=_TIMEOUT_S, set_as_default=False)
    except ValueError as error:
        raise InputError(f"--cluster: {address}: no address ({first_line(error)}).") from error
    except (OSError, TimeoutError) as error:
        raise EnvironmentFailure(
            f"--cluster: no scheduler answers at {address} ({first_line(error)})."
        ) from error


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise InputError(
            "--cluster: Dask is not installed; pip install 'jaxreg[cluster]'."
        ) from error
