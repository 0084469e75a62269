"""Does memory stay flat over many pairs? `python experiments/many_pairs.py --pairs=1000`.

Phantoms with labels, registered in one process by what `jaxreg register --pairs` calls.
Every so many pairs the memory that the process holds (RSS) is printed, and at the end the slope of
a line through the second half, and how much of it is in use (Linux with glibc). With --plot
FILE.png the curve is drawn too.
"""

import ctypes
import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jaxreg import runtime

runtime.prepare()

from jaxreg.configuration.registration import RegisterConfig  # noqa: E402
from jaxreg.data.synthetic import phantom  # noqa: E402
from jaxreg.registration.batch.batch import register_pairs  # noqa: E402

HEAD = "fixed\tmoving\tfixed_labels\tmoving_labels"


@dataclass(frozen=True)
class ManyConfig:
    """What is run."""

    pairs: int = 1000
    """Pairs in all."""
    side: int = 48
    """Voxels along each axis; the phantoms are 192 mm wide."""
    subjects: int = 6
    """Phantoms; the pairs go around among them."""
    every: int = 50
    """Pairs between two figures."""
    minutes: float = 60.0
    """After so many minutes no more pairs are begun."""
    model: Path | None = None
    """Training workdir of a network; without one the velocity is optimised in one step."""
    plot: Path | None = None
    """Where the curve is drawn."""


class _Enough(Exception):
    """The time is over."""


def main() -> None:
    """Register, and print the curve."""
    config = tyro.cli(ManyConfig, description=__doc__)
    with tempfile.TemporaryDirectory() as place:
        curve = measure(config, Path(place))
    half = curve[len(curve) // 2 :]
    if len(half) > 1:
        slope = np.polyfit(half[:, 0], half[:, 1], 1)[0] * 1000
        print(f"second half: {slope:+.1f} MB in 1,000 pairs")
    gc.collect()
    collected = resident_megabytes()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free but kept by the allocator
    print(f"after a collection {collected:.1f} MB, trimmed {resident_megabytes():.1f} MB")
    if config.plot is not None:
        draw(curve, config.plot)


def measure(config: ManyConfig, folder: Path) -> np.ndarray:
    """(pairs, MB) every so many pairs."""
    table = write_table(config, folder)
    if config.model is None:
        spacing = 192 / config.side
        settings = RegisterConfig(optimize_only=True, steps=1, spacing=spacing, init="none")
    else:
        settings = RegisterConfig(model=config.model, init="none")
    curve: list[tuple[int, float]] = []
    try:
        register_pairs(table, folder / "out", settings, say=_recorder(config, curve))
    except _Enough:
        print(f"{config.minutes:g} minutes are over")
    return np.array(curve)


def _recorder(config: ManyConfig, curve: list[tuple[int, float]]) -> Callable[[str], None]:
    """What takes the line of each pair and now and then a figure."""
    start, count = time.monotonic(), 0

    def say(line: str) -> None:
        nonlocal count
        if "/" not in line.split(" ")[0]:
            return print(line, flush=True)
        if "failed" in line:
            raise RuntimeError(line)
        count += 1
        seconds = time.monotonic() - start
        if count in (1, 10) or count % config.every == 0:
            curve.append((count, resident_megabytes()))
            print(
                f"{count} pairs: {curve[-1][1]:.1f} MB, {seconds / count:.2f} s a pair", flush=True
            )
        if seconds > 60 * config.minutes:
            raise _Enough

    return say


def write_table(config: ManyConfig, folder: Path) -> Path:
    """A cohort of phantoms, and a table of pairs of them."""
    cohort = phantom.write_phantom_cohort(
        folder / "cohort",
        shape=(config.side, config.side, config.side),
        spacing_mm=192 / config.side,
        subjects={"train": config.subjects},
    )
    names = sorted(p.name for p in cohort.iterdir() if p.is_dir())
    others = [(f, m) for f in names for m in names if f != m]
    rows = [HEAD]
    for number in range(config.pairs):
        fixed, moving = others[number % len(others)]
        files = [f"{fixed}/{fixed}_T1w", f"{moving}/{moving}_T2w"]
        files += [f"{subject}/{subject}_dseg" for subject in (fixed, moving)]
        rows.append("\t".join(f"{file}.nii.gz" for file in files))
    table = cohort / "pairs.tsv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def resident_megabytes() -> float:
    """Memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def draw(curve: np.ndarray, path: Path) -> None:
    """Draw the curve."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(curve[:, 0], curve[:, 1], marker=".")
    axes.set(xlabel="pairs", ylabel="resident memory (MB)", ylim=(0, None))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
