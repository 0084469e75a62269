"""A file for each pair that failed, with the kind of its failure: `failures/NAME.json`.

The file of a pair that is being registered says that it is unfinished. So a process that is killed,
which can write nothing any more, leaves the right record.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

from jaxreg.errors import InputError, Kind
from jaxreg.io.atomic import completed
from jaxreg.registration.batch.pairs import FAILURES, FilePair

_JOB = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""How batch systems name a job in its environment."""


class Failure(NamedTuple):
    """Why a pair has no result.

    Attributes:
        kind: whose fault it is; of an unfinished pair environment.
        reason: in one line.
        unfinished: whether its process is still at work, or was killed.
        ingredients: the settings and the files by content that failed, where that decides whether
            the pair is tried again.
        fixed: the pair's fixed image, as the table has it.
        moving: its moving image.
    """

    kind: Kind
    reason: str
    unfinished: bool = False
    ingredients: dict[str, Any] | None = None
    fixed: str = ""
    moving: str = ""


def path_of(out: Path, name: str) -> Path:
    """Where the failure of a pair is recorded."""
    return out / FAILURES / f"{name}.json"


def started_here() -> Failure:
    """The record of a pair that this process begins."""
    reason = "and not finished: still running, or killed (memory, time limit)"
    return Failure("environment", f"started on {_here()}, {reason}", unfinished=True)


def stopped_here(signal_name: str) -> Failure:
    """The record of a pair at whose work this process gets a signal that ends it."""
    reason = f"and stopped by {signal_name} (a time limit, or somebody who ended the job)"
    return Failure("environment", f"started on {_here()}, {reason}", unfinished=True)


def _here() -> str:
    """Host, process and job."""
    job = [f"{name}={os.environ[name]}" for name in _JOB if name in os.environ]
    return ", ".join([socket.gethostname(), f"process {os.getpid()}", *job])


def record(out: Path, pair: FilePair, failure: Failure) -> None:
    """Write why a pair has no result, in place of an earlier record.

    Raises:
        InputError: it cannot be written.
    """
    failure = failure._replace(fixed=pair.fixed, moving=pair.moving)
    text = json.dumps(failure._asdict(), indent=1, ensure_ascii=False) + "\n"
    with completed(path_of(out, pair.name)) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def forget(out: Path, name: str) -> None:
    """Remove the record of a pair that has a result now."""
    path_of(out, name).unlink(missing_ok=True)


def failure_of(out: Path, name: str) -> Failure | None:
    """The record of a pair; None where there is none, or where it is damaged."""
    try:
        values = json.loads(path_of(out, name).read_text(encoding="utf-8"))
        return Failure(**values)
    except (OSError, ValueError, TypeError):
        return None


def folder_for(out: Path) -> None:
    """Make the folder of the records.

    Raises:
        InputError: it cannot be made.
    """
    try:
        (out / FAILURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"no folder for the results ({error.strerror})"
        raise InputError(f"{out / FAILURES}: {text}.") from error
