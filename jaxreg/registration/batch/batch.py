"""Any number of pairs registered one after another, or on a cluster: `jaxreg register --pairs`.

A pair's files are the only record of it: what stands in its folder decides whether it is done, and
gives the numbers in results.tsv; `failures` has a file for each one that failed. So a run that was
cut off, one process, several jobs at once and many workers all leave the same bytes.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxreg.configuration.registration import OPTIONAL_FILES, RegisterConfig
from jaxreg.configuration.serialization import as_json, from_json
from jaxreg.errors import InputError, Kind, exit_code_of, kind_of, reason_of
from jaxreg.io.atomic import InUse, claimed, require_writable
from jaxreg.io.remarks import WARNING
from jaxreg.progress import SILENT, Progress
from jaxreg.registration.batch import failures
from jaxreg.registration.batch.at_work import AT_WORK
from jaxreg.registration.batch.dask import require_cluster, run_jobs
from jaxreg.registration.batch.group import write_page_of
from jaxreg.registration.batch.pairs import GROUP, RESULTS, FilePair, read_pairs, rows_of
from jaxreg.registration.batch.results import (
    Outcome,
    ResultsTable,
    line_of,
    outcome_of,
    outcomes_of,
    own_columns_of,
)
from jaxreg.registration.batch.resume import DONE, FREE, Ingredients, Methods, state_of
from jaxreg.registration.batch.side_by_side import AT_ONCE, side_by_side
from jaxreg.registration.linear.starts import read_affine
from jaxreg.registration.output.provenance import segmentation_sha256
from jaxreg.registration.run import register_files


class Batch(NamedTuple):
    """What became of the pairs of a run.

    Attributes:
        table: results.tsv.
        done: the names of those that have a result.
        failed: why others have none, by name.
        kinds: whose fault that is, by name.
        elsewhere: those that another process is registering.
        page: index.html; None of a run of some rows, which writes none.
    """

    table: Path
    done: list[str]
    failed: dict[str, str]
    kinds: dict[str, Kind]
    elsewhere: list[str]
    page: Path | None

    @property
    def exit_code(self) -> int:
        """0 where all are done; else 75 where the same command does more of them, else 1."""
        of_others: list[Kind] = ["environment"] if self.elsewhere else []
        return exit_code_of([*self.kinds.values(), *of_others])


class Work(NamedTuple):
    """What all pairs of a run share."""

    out: Path
    config: RegisterConfig
    overwrite: bool
    retry: bool = False


class Job(NamedTuple):
    """The pairs of a table, and those that this run is about."""

    pairs: Sequence[FilePair]
    own: Sequence[FilePair]


def register_pairs(
    table: Path,
    out: Path,
    config: RegisterConfig,
    *,
    rows: str | None = None,
    overwrite: bool = False,
    retry: bool = False,
    cluster: str | None = None,
    at_once: int = AT_ONCE,
    say: Callable[[str], None] = print,
    progress: Progress = SILENT,
    finished: Callable[[str], None] = lambda name: None,
) -> Batch:
    """Register what is not done yet of a table's pairs, or of some `rows` such as 1-10,20.

    Each pair gets `out`/NAME as a run of its own would write it, all together `out`/results.tsv. A
    pair that fails is recorded with its reason; one that failed by its input is tried again when
    that has changed, or with `retry`. Several processes may do this at once. `cluster` is the
    address of a Dask scheduler; without one, `at_once` pairs are registered at a time.
    `finished` gets the name of each pair when its result is there.

    Raises:
        InputError: a wrong table or setting, a folder that cannot be written, or with other results
            and no `overwrite`; a cluster that does not answer, no space left for the table.
    """
    _check_settings(config)
    if cluster is not None:
        require_cluster(cluster)
    pairs = read_pairs(table)
    own = pairs if rows is None else [pairs[index] for index in rows_of(rows, len(pairs), say=say)]
    further = own_columns_of(pairs)
    work = Work(_folder(out, table), _absolute(config), overwrite, retry)
    for pair in own:
        pair.config(work.config)  # what contradicts itself is said before the work
    if further:
        say(f"columns that jaxreg carries into {RESULTS} and does not read: {', '.join(further)}")
    with AT_WORK.recorded_when_terminated():
        return _register(Job(pairs, own), work, cluster, at_once, say, progress, finished)


def _register(
    job: Job,
    work: Work,
    cluster: str | None,
    at_once: int,
    say: Callable[[str], None],
    progress: Progress,
    finished: Callable[[str], None],
) -> Batch:
    methods = Methods()
    with progress.phase("load model"):
        methods.of(work.config)
    outcomes, todo = _sorted_out(work, job.own, Ingredients(work.config, methods))
    kept = sum(outcome.status != "done" for outcome in outcomes.values())
    say(_beginning(job, len(outcomes) - kept, kept))
    if cluster is None:
        results = side_by_side(lambda pair: register_one(work, pair, methods), todo, at_once)
    else:
        results = _on_cluster(cluster, work, todo, methods, say)
    elsewhere, tables = [], ResultsTable(work.out, job.pairs)
    tried = progress.each(
        results, total=len(todo), name="register", unit="pairs", named=lambda outcome: outcome.name
    )
    try:
        for number, outcome in enumerate(tried, start=1):
            if outcome.status == "unfinished":
                elsewhere.append(outcome.name)
            else:
                outcomes[outcome.name] = outcome
            if outcome.status == "done":
                finished(outcome.name)
            mark = WARNING if outcome.status == "failed" else ""
            say(f"{mark}{number}/{len(todo)} {line_of(outcome)}")
            tables.write_if_due(outcomes)
    finally:
        tables.write(outcomes)
    names = (pair.name for pair in job.pairs)
    page = None
    if len(job.own) == len(job.pairs):
        with progress.phase("group page"):
            write_page_of(work.out, job.pairs, {**outcomes, **outcomes_of(work.out, names)})
        page = work.out / GROUP
    failed = {name: o for name, o in outcomes.items() if o.status != "done"}
    batch = Batch(
        work.out / RESULTS,
        [name for name in outcomes if name not in failed],
        {name: o.reason or "" for name, o in failed.items()},
        {name: o.kind or "internal" for name, o in failed.items()},
        elsewhere,
        page,
    )
    say(_ending(batch, len(job.own)))
    return batch


def register_one(work: Work, pair: FilePair, methods: Methods) -> Outcome:
    """A pair registered into its folder, unless its result stands there; never fails.

    The outcome of a pair that another process is registering is unfinished.
    """
    try:
        with claimed(failures.path_of(work.out, pair.name)):
            with claimed(work.out / pair.name):
                pass  # what killed processes left is removed, or comes back
            return _registered(work, pair, methods)
    except InUse as error:
        return Outcome(pair.name, "unfinished", "environment", reason_of(error))
    except Exception as error:  # whatever it is, the other pairs go on
        return Outcome(pair.name, "failed", kind_of(error), reason_of(error))


def _registered(work: Work, pair: FilePair, methods: Methods) -> Outcome:
    """The outcome of a pair that no other process of a batch works on."""
    folder, ingredients = work.out / pair.name, Ingredients(work.config, methods)
    try:
        if state_of(folder, pair, ingredients) != DONE:
            failures.record(work.out, pair, failures.started_here())
            config = pair.config(work.config)
            with AT_WORK.on(work.out, pair):
                register_files(
                    Path(pair.files["fixed"]),
                    Path(pair.files["moving"]),
                    folder,
                    config,
                    overwrite=work.overwrite,
                    say=lambda line: None,
                    method=methods.of(config),
                )
        failures.forget(work.out, pair.name)
    except InUse:
        failures.forget(work.out, pair.name)
        raise
    except Exception as error:
        kind, reason = kind_of(error), reason_of(error)
        found = ingredients.of(pair) if kind == "input" else None
        failures.record(work.out, pair, failures.Failure(kind, reason, False, found))
        return Outcome(pair.name, "failed", kind, reason)
    except BaseException:  # interrupted; the process lives, and so can say that nothing failed
        failures.forget(work.out, pair.name)
        raise
    outcome = outcome_of(work.out, pair.name)
    assert outcome is not None
    return outcome


def register_sent(job: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a job that `_job` made, on a worker; a network is loaded once for all."""
    config = from_json(RegisterConfig, job["config"])
    work, pair = Work(Path(job["out"]), config, job["overwrite"]), FilePair(**job["pair"])
    methods, own = _shared_methods(config.model, job["weights_sha256"]), pair.config(config)
    if methods.of(own).weights_sha256 != job["weights_sha256"]:
        raise InputError(f"{config.model}: the worker finds other weights there than the client.")
    if segmentation_sha256(own) != job["segmentation_sha256"]:
        raise InputError(
            f"{own.segmentation or 'segmentation'}: the worker finds other networks there than the "
            "client."
        )
    return register_one(work, pair, methods)._asdict()


def _job(work: Work, pair: FilePair, methods: Methods) -> dict[str, Any]:
    """What a worker needs of a pair: text, numbers and dictionaries of them."""
    own = pair.config(work.config)
    return {
        "pair": pair._asdict(),
        "out": str(work.out),
        "config": as_json(work.config),
        "overwrite": work.overwrite,
        "weights_sha256": methods.of(own).weights_sha256,
        "segmentation_sha256": segmentation_sha256(own),
    }


@functools.lru_cache(maxsize=2)
def _shared_methods(model: Path | None, weights_sha256: str | None) -> Methods:
    """The methods with these weights; a worker may outlive the run that asked for others."""
    return Methods()


def _on_cluster(address, work, todo, methods, say) -> Iterator[Outcome]:
    jobs = {pair.name: _job(work, pair, methods) for pair in todo}
    pairs = {pair.name: pair for pair in todo}
    for name, found in run_jobs(address, register_sent, jobs, say=say):
        if isinstance(found, BaseException):
            failure = failures.Failure(kind_of(found), reason_of(found))
            failures.record(work.out, pairs[name], failure)
            yield Outcome(name, "failed", failure.kind, failure.reason)
        else:
            yield Outcome(**found)


def _sorted_out(
    work: Work, pairs: Sequence[FilePair], ingredients: Ingredients
) -> tuple[dict[str, Outcome], list[FilePair]]:
    """(the outcomes that stand, the pairs to register), those that may kill a process last.

    The folders of the pairs to register are free, or may be overwritten.
    """
    outcomes: dict[str, Outcome] = {}
    todo: list[FilePair] = []
    last: list[FilePair] = []
    for pair in pairs:
        folder, outcome = work.out / pair.name, outcome_of(work.out, pair.name)
        found = state_of(folder, pair, ingredients)
        if found not in (DONE, FREE) and not work.overwrite:
            raise InputError(f"{folder}: {found}; give --overwrite, or another --out.")
        failure = failures.failure_of(work.out, pair.name)
        stands = not work.retry and failure is not None and _is_final(failure, pair, ingredients)
        if outcome is not None and (stands or (found == DONE and failure is None)):
            outcomes[pair.name] = outcome
        elif failure is not None and failure.unfinished:
            last.append(pair)
        else:
            todo.append(pair)
    return outcomes, todo + last


def _is_final(failure: failures.Failure, pair: FilePair, ingredients: Ingredients) -> bool:
    """Whether a pair would fail again: by its input, which is still the same."""
    if failure.kind != "input":
        return False
    own = ingredients.of(pair)
    return failure.ingredients == json.loads(json.dumps(own))


def _beginning(job: Job, done: int, kept: int) -> str:
    """The first line: how much there is to do."""
    part = "" if len(job.own) == len(job.pairs) else f" of {len(job.pairs)}"
    text = f"{len(job.own)}{part} pairs, {done} of them done already"
    if kept:
        text += f", {kept} failed by an input that is still the same (--retry tries again)"
    return text


def _ending(batch: Batch, count: int) -> str:
    """The last line: what became of the pairs; a warning unless all are done."""
    text = WARNING if batch.exit_code else ""
    text += f"{len(batch.done)} of {count} pairs done, {len(batch.failed)} failed"
    if batch.elsewhere:
        text += f", {len(batch.elsewhere)} being registered by another process"
    text = f"{text}; the table is {batch.table}"
    return text if batch.page is None else f"{text}, the page {batch.page}"


def _check_settings(config: RegisterConfig) -> None:
    for name in OPTIONAL_FILES:
        if getattr(config, name) is not None:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag}: not read with --pairs; give the table a column {name}.")


def _absolute(config: RegisterConfig) -> RegisterConfig:
    """The settings with absolute paths, for workers with another working directory."""
    model, segmentation = (
        None if path is None else path.absolute() for path in (config.model, config.segmentation)
    )
    init = config.init
    if init is not None and config.init_mode is None:
        read_affine(init)  # what is wrong with it is wrong for every pair
        init = str(Path(init).absolute())
    return dataclasses.replace(config, model=model, segmentation=segmentation, init=init)


def _folder(out: Path, table: Path) -> Path:
    """The folder of the results, which is there then, and in which files can be written."""
    if (out / RESULTS).resolve() == table.resolve():
        raise InputError(f"{table}: is where the results are written; give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: no folder for the results ({error.strerror}).") from error
    require_writable(out / RESULTS)
    failures.folder_for(out)
    return out.absolute()
