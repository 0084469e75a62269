"""A job of a batch whose registrations take no time: `batch_job.py TABLE JOB locks|none`.

It waits for a file `go` beside the table, writes the results of every fourth pair into `out`
there, and the table after each of them. With `none` the file system has no locks.
"""

import errno
import json
import sys
import time
from pathlib import Path

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.serialization import as_json
from jaxreg.io import locks as io_locks
from jaxreg.io.checksums import file_sha256
from jaxreg.registration.batch.pairs import read_pairs
from jaxreg.registration.batch.results import NUMBERS, join_results

JOBS = 4


def write_result(fixed, moving, folder, config):
    """The records that a registration leaves."""
    folder.mkdir(exist_ok=True)
    sides = {
        s: {"files": {"image": {"sha256": file_sha256(p)}}}
        for s, p in (("fixed", fixed), ("moving", moving))
    }
    record = {
        "command": {"fixed": str(fixed), "moving": str(moving), **as_json(config)},
        **sides,
        "model": None,
        "metrics": dict.fromkeys(NUMBERS, 0.5),
        "outputs_sha256": {},
        "warnings": ["a first\tone", "a second one"],
        "verdict": {"state": "amber", "reasons": ["2 warnings"]},
    }
    (folder / "provenance.json").write_text(json.dumps(record))
    timings = {"seconds": {"read": 1.25, "register": 30.0}, "peak_gigabytes": 1.875}
    (folder / "timings.json").write_text(json.dumps(timings))


def main(table: Path, job: int, locks: str) -> None:
    """Add a job's pairs, one after the other."""
    if locks == "none":
        io_locks.fcntl.flock = _no_locks
    pairs, out = read_pairs(table), table.parent / "out"
    (table.parent / f"ready-{job}").touch()
    while not (table.parent / "go").exists():
        time.sleep(0.01)
    for pair in pairs[job::JOBS]:
        fixed, moving = Path(pair.files["fixed"]), Path(pair.files["moving"])
        write_result(fixed, moving, out / pair.name, RegisterConfig())
        join_results(out, pairs, {})


def _no_locks(handle: int, how: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
