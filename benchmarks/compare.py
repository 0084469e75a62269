"""jaxreg and VoxelMorph side by side: `python benchmarks/compare.py [--all] [--out results.json]`.

Each job runs in a process of its own; those of a job are alive at the same time and run in turns,
so that what else the machine does meets both (at 1 mm one after the other: each needs much memory).
A process before them runs the job once: jaxreg's programs then lie in its cache, and what compiling
takes (`first s`, `first GB`, where the cache was empty) is told apart from what running takes.
Prints a Markdown table of medians. VoxelMorph is measured where it is installed (extra `bench`).
"""

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro

SHAPES = {"4 mm": (48, 48, 48), "2 mm": (80, 96, 80), "1 mm": (192, 224, 192)}
"""Multiples of 16, as VoxelMorph's network needs them."""
SHARED = (
    "inference",
    "training_step",
    "warp",
    "warp_gradient",
    "integration",
    "equal_network",
    "equal_network_gradient",
)
"""The equal networks have one resolution, the half grid, and the same widths, 16-32-48."""
OWN = ("training_step_nce_mi", "training_step_nce_mi_conv", "sweep_11", "encoder", "batch")
LOSSES = ("mi", "lmi", "ngf", "mind", "nce", "nce_mi", "lncc", "mse")


class Ended(Exception):
    """A process ended before its job was done: with -9 where memory did not suffice."""


class Worker:
    """A process that has one job ready."""

    def __init__(self, library: str, job: str, shape: tuple[int, ...]):
        """Start it and wait until the job has run once."""
        script = Path(__file__).with_name("worker.py")
        arguments = [library, job, ",".join(map(str, shape))]
        self.library, self.seconds = library, []
        self._process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first = self._answer()["first"]

    def turn(self) -> None:
        """Run the job once more."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        self.seconds.append(self._answer()["seconds"])

    def end(self) -> float:
        """Peak memory in GB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = self._answer()["peak_bytes"]
        self._process.wait()
        return peak / 1e9

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Ended(f"ended with {self._process.wait()}")
        return json.loads(line)


def measure(job: str, shape: tuple[int, ...], libraries: tuple[str, ...], turns: int):
    """Figures of a job by library, the libraries taking turns: seconds, and memory in GB."""
    earlier = [Worker(library, job, shape) for library in libraries]
    first_gb = [worker.end() for worker in earlier]
    workers = [Worker(library, job, shape) for library in libraries]
    for _ in range(turns):
        for worker in workers:
            worker.turn()
    figures = {}
    for library, before, gb, worker in zip(libraries, earlier, first_gb, workers, strict=True):
        low, median, high = statistics.quantiles(worker.seconds, n=4, method="inclusive")
        figures[library] = {"median": median, "low": low, "high": high, "peak_gb": worker.end()}
        figures[library] |= {"first": before.first, "first_gb": gb}
    return figures


def main(*, all: bool = False, turns: int = 9, out: Path | None = None) -> None:
    """Measure and print the tables.

    Args:
        all: 4 mm and 1 mm too; 1 mm in VoxelMorph takes long and much memory.
        turns: runs of each job, after the first.
        out: JSON file for the figures.
    """
    bench = importlib.util.find_spec("voxelmorph") is not None
    both = ("jaxreg", "voxelmorph") if bench else ("jaxreg",)
    if not bench:
        print("voxelmorph is not installed (extra `bench`): jaxreg alone.")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    results: dict[str, Any] = {}
    for name in SHAPES if all else ("2 mm",):
        jobs = {job: both for job in SHARED} | {job: ("jaxreg",) for job in OWN}
        if name == "1 mm":
            jobs.pop("batch")
        else:
            jobs |= {
                f"loss_{loss}{end}": ("jaxreg",) for loss in LOSSES for end in ("", "_gradient")
            }
        print(f"## {name}, {'×'.join(map(str, SHAPES[name]))}\n")
        print("| job | library | median s | quartiles | peak GB | first s | first GB | ratio |")
        print("|---|---|---|---|---|---|---|---|")
        results[name] = {}
        for job, libraries in jobs.items():
            figures = results[name][job] = {}
            for group in [(one,) for one in libraries] if name == "1 mm" else [libraries]:
                try:
                    figures |= measure(job, SHAPES[name], group, turns)
                except Ended as error:
                    print(f"| {job} | {' or '.join(group)} | {error} | | | | | |", flush=True)
            for library, f in figures.items():
                own = figures.get("jaxreg")
                ratio = f"{f['median'] / own['median']:.2f}" if own else ""
                print(
                    f"| {job} | {library} | {f['median']:.4f} | {f['low']:.4f}–{f['high']:.4f} "
                    f"| {f['peak_gb']:.2f} | {f['first']:.1f} | {f['first_gb']:.2f} "
                    f"| {ratio} |",
                    flush=True,
                )
        print()
    two = results["2 mm"]
    summary: dict[str, Any] = {"results": results}
    sweep, one = (two.get(job, {}).get("jaxreg") for job in ("sweep_11", "inference"))
    if sweep and one:  # a job that ended early has no figures
        summary["sweep_in_registrations"] = sweep["median"] / one["median"]
        print(f"a sweep of 11 λ costs {summary['sweep_in_registrations']:.2f} registrations")
    if bench:
        summary["ratios"] = {
            job: two[job]["voxelmorph"]["median"] / two[job]["jaxreg"]["median"]
            for job in SHARED
            if job != "integration" and not job.startswith("equal") and len(two.get(job, {})) > 1
        }
    if out is not None:
        out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
