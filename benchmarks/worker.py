"""One job in a process of its own, driven by compare.py through standard input and output.

`python worker.py LIBRARY JOB X,Y,Z` prepares the job, runs it once and prints a line of JSON with
the seconds that this took; then it runs the job once for each line that it reads and prints the
seconds; at the end of its input it prints its peak memory in bytes.
"""

import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """Serve one job."""
    library, name = sys.argv[1:3]
    if Path("/proc/self/oom_score_adj").is_file():  # where memory is short, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    x, y, z = (int(n) for n in sys.argv[3].split(","))
    if library == "jaxreg":
        from jaxreg import runtime

        runtime.prepare()
        import jaxreg_jobs as jobs
    else:
        import voxelmorph_jobs as jobs
    start = time.perf_counter()
    job = jobs.JOBS[name]((x, y, z))
    job()
    _say({"first": time.perf_counter() - start})
    for _ in sys.stdin:
        start = time.perf_counter()
        job()
        _say({"seconds": time.perf_counter() - start})
    _say({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def _say(value) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
