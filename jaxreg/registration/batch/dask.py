"""Pairs on a Dask cluster: `distributed` is used here alone.

What goes over the wire are dictionaries of text and numbers, a kilobyte a pair, and the name of one
function; Dask wraps them in its own serialisation. Images and networks are read where they are
used, from files that all workers see.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxreg import runtime
from jaxreg.errors import EnvironmentFailure, InputError, first_line

_IN_FLIGHT = 5000
"""Jobs that the scheduler knows at a time; a million at once would cost it gigabytes."""
_TIMEOUT_S = 30


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
        EnvironmentFailure: nobody answers, or the scheduler is gone.
    """
    distributed, named = _distributed(), f"{run.__module__}:{run.__qualname__}"
    with _client(distributed, address) as client:
        say(f"{address}: {len(client.scheduler_info(n_workers=-1)['workers'])} workers so far")
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
                text = f"--cluster: {address} is gone; the same command continues."
                raise EnvironmentFailure(text)
            error = future.exception()
            if isinstance(error, distributed.KilledWorker):
                error = EnvironmentFailure(f"its workers died (memory, time limit): {error}")
            yield names.pop(future.key), future.result() if error is None else error
            running.update(submit(1))


def run_prepared(named: str, job: dict[str, Any]) -> dict[str, Any]:
    """A job's outcome, on a worker, by the function that `named` names (module:function).

    Looking the function up imports JAX, so the environment is set before.
    """
    runtime.prepare()
    return pkgutil.resolve_name(named)(job)


def _client(distributed: Any, address: str) -> Any:
    """A client of the scheduler at an address or of a scheduler's file."""
    where = {"address": address}
    if "://" not in address:
        if not Path(address).is_file():
            raise InputError(
                f"--cluster: expected tcp://HOST:PORT or a scheduler file, got {address!r}."
            )
        where = {"scheduler_file": address}
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
