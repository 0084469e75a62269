"""Any number of pairs registered one after another, or on a cluster: `jaxreg register --pairs`.

A pair's folder is the only record of it: what stands there decides whether it is done, and gives
the numbers in results.tsv. So a run that was cut off, one process and many workers all leave the
same bytes.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxreg.configuration.registration import OPTIONAL_FILES, RegisterConfig
from jaxreg.configuration.serialization import as_json, from_json
from jaxreg.errors import InputError, reason_of
from jaxreg.io.atomic import claimed, remove_leftovers, require_writable
from jaxreg.progress import SILENT, Progress
from jaxreg.registration.batch.dask import run_jobs
from jaxreg.registration.batch.pairs import RESULTS, FilePair, read_pairs
from jaxreg.registration.batch.results import Outcome, line_of, write_results
from jaxreg.registration.batch.resume import (
    DONE,
    FREE,
    Ingredients,
    numbers_in,
    state_of,
)
from jaxreg.registration.deformable.method import Method, load_method
from jaxreg.registration.linear.starts import read_affine
from jaxreg.registration.run import register_files

_SECONDS_BETWEEN_TABLES = 5.0
"""So that writing results.tsv again and again does not grow with the square of the pairs."""


class Batch(NamedTuple):
    """What became of the pairs of a table: those that are done, and why others failed."""

    table: Path
    done: list[str]
    failed: dict[str, str]


class Work(NamedTuple):
    """What all pairs of a run share."""

    out: Path
    config: RegisterConfig
    overwrite: bool


def register_pairs(
    table: Path,
    out: Path,
    config: RegisterConfig,
    *,
    overwrite: bool = False,
    cluster: str | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = SILENT,
) -> Batch:
    """Register what is not done yet of a table's pairs.

    Each pair gets `out`/NAME as a run of its own would write it, all together `out`/results.tsv. A
    pair that fails is recorded with its reason. `cluster` is the address of a Dask scheduler.

    Raises:
        InputError: a wrong table or setting, a folder that cannot be written, that another run
            writes, or with other results and no `overwrite`; a cluster that does not answer, no
            space left for the table.
    """
    _check_settings(config)
    pairs = read_pairs(table)
    work = Work(_folder(out, table), _absolute(config), overwrite)
    with claimed(work.out):
        return _register_claimed(pairs, work, cluster, say, progress)


def _register_claimed(
    pairs: list[FilePair],
    work: Work,
    cluster: str | None,
    say: Callable[[str], None],
    progress: Progress,
) -> Batch:
    """As `register_pairs`, into a folder that no other run writes."""
    with progress.phase("load model"):
        method = load_method(work.config)
    ingredients = Ingredients(work.config, method)
    outcomes = _finished_outcomes(work, pairs, ingredients)
    todo = [pair for pair in pairs if pair.name not in outcomes]
    done = len(outcomes)
    say(f"{len(pairs)} pairs, {done} of them done already")
    if cluster is None:
        results = (register_one(work, pair, method) for pair in todo)
    else:
        results = _on_cluster(cluster, work, todo, method.weights_sha256, say)
    path = work.out / RESULTS
    try:
        for outcome in progress.each(results, total=len(todo), name="register", unit="pairs"):
            outcomes[outcome.name] = outcome
            say(f"{len(outcomes) - done}/{len(todo)} {line_of(outcome)}")
            if _due(path):
                write_results(path, pairs, outcomes)
    finally:
        write_results(path, pairs, outcomes)
    reasons = {name: outcome.reason for name, outcome in outcomes.items()}
    failed = {name: reason for name, reason in reasons.items() if reason is not None}
    batch = Batch(path, [name for name in reasons if name not in failed], failed)
    say(f"{len(batch.done)} of {len(pairs)} pairs done, {len(failed)} failed; the table is {path}")
    return batch


def register_one(work: Work, pair: FilePair, method: Method) -> Outcome:
    """A pair registered into its folder, unless its result stands there; never fails."""
    config = dataclasses.replace(
        work.config,
        **{name: Path(pair.files[name]) for name in OPTIONAL_FILES if name in pair.files},
    )
    folder = work.out / pair.name
    try:
        remove_leftovers(work.out, {pair.name})
        if state_of(folder, pair, Ingredients(work.config, method)) != DONE:
            register_files(
                Path(pair.files["fixed"]),
                Path(pair.files["moving"]),
                folder,
                config,
                overwrite=work.overwrite,
                say=lambda line: None,
                method=method,
            )
        return Outcome(pair.name, None, numbers_in(folder))
    except Exception as error:  # whatever it is, the other pairs go on
        return Outcome(pair.name, reason_of(error), {})


def register_sent(job: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a job that `_job` made, on a worker; the network is loaded once for all."""
    config = from_json(RegisterConfig, job["config"])
    work = Work(Path(job["out"]), config, job["overwrite"])
    method = _shared_method(config, job["weights_sha256"])
    return register_one(work, FilePair(**job["pair"]), method)._asdict()


def _job(work: Work, pair: FilePair, weights_sha256: str | None) -> dict[str, Any]:
    """What a worker needs of a pair: text, numbers and dictionaries of them."""
    return {
        "pair": pair._asdict(),
        "out": str(work.out),
        "config": as_json(work.config),
        "overwrite": work.overwrite,
        "weights_sha256": weights_sha256,
    }


@functools.lru_cache(maxsize=1)
def _shared_method(config: RegisterConfig, weights_sha256: str | None) -> Method:
    """The method with these weights; a worker may outlive the run that asked for others."""
    method = load_method(config)
    if method.weights_sha256 != weights_sha256:
        raise InputError(f"{config.model}: the worker finds other weights there than the client.")
    return method


def _on_cluster(address, work, todo, weights_sha256, say) -> Iterator[Outcome]:
    jobs = {pair.name: _job(work, pair, weights_sha256) for pair in todo}
    for name, found in run_jobs(address, register_sent, jobs, say=say):
        yield Outcome(name, found, {}) if isinstance(found, str) else Outcome(**found)


def _finished_outcomes(
    work: Work, pairs: list[FilePair], ingredients: Ingredients
) -> dict[str, Outcome]:
    """The outcomes of the pairs that are done; the folders of all others are free, or made so."""
    remove_leftovers(work.out, {RESULTS, *(pair.name for pair in pairs)})
    outcomes: dict[str, Outcome] = {}
    for pair in pairs:
        folder = work.out / pair.name
        found = state_of(folder, pair, ingredients)
        if found == DONE:
            outcomes[pair.name] = Outcome(pair.name, None, numbers_in(folder))
        elif found != FREE and not work.overwrite:
            raise InputError(f"{folder}: {found}; give --overwrite, or another --out.")
    return outcomes


def _due(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _SECONDS_BETWEEN_TABLES
    except FileNotFoundError:
        return True


def _check_settings(config: RegisterConfig) -> None:
    for name in OPTIONAL_FILES:
        if getattr(config, name) is not None:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag}: not read with --pairs; give the table a column {name}.")


def _absolute(config: RegisterConfig) -> RegisterConfig:
    """The settings with absolute paths, for workers with another working directory."""
    model = None if config.model is None else config.model.absolute()
    init = config.init
    if init is not None and config.init_mode is None:
        read_affine(init)  # what is wrong with it is wrong for every pair
        init = str(Path(init).absolute())
    return dataclasses.replace(config, model=model, init=init)


def _folder(out: Path, table: Path) -> Path:
    """The folder of the results, which is there then, and in which files can be written."""
    if (out / RESULTS).resolve() == table.resolve():
        raise InputError(f"{table}: is where the results are written; give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: no folder for the results ({error.strerror}).") from error
    require_writable(out / RESULTS)
    return out.absolute()
