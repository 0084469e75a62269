"""What compilation costs the first run of each command: seconds with an empty cache, and again.

    python benchmarks/first_run.py FIXED MOVING

FIXED is a T1w, MOVING a T2w of a brain. The two stages of training take one step, the second one
with the loss `nce_mi`, on the phantoms that jaxreg makes when no data are given; the first command
that needs the phantoms makes them. `eval` scores what the stages leave at one λ. Each command has a
cache of its own, so that it finds nothing that another one compiled.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(fixed: str, moving: str) -> dict[str, list[str]]:
    """The arguments of each command by name, but for where it writes to."""
    pair, train = [fixed, moving], ["train", "--steps=1", "--validate-every=0"]
    return {
        "register": ["register", *pair],
        "register --extract never": ["register", *pair, "--extract=never"],
        "register --optimize-only": ["register", *pair, "--optimize-only"],
        "register --transform affine": ["register", *pair, "--transform=affine"],
        "segment": ["segment", fixed],
        "normalize": ["normalize", fixed],
        "train --stage=ae": [*train, "--stage=ae"],
        "train --stage=reg": [*train, "--stage=reg", "--encoders=train --stage=ae"],
        "eval": ["eval", "--lambdas=0.5"],
    }


def main(fixed: str, moving: str) -> None:
    """Run each command twice, and print a row of a Markdown table for it."""
    print("| command | empty cache, s | again, s |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command, argv in commands(
            str(Path(fixed).resolve()), str(Path(moving).resolve())
        ).items():
            first, again = (timed(command, argv, folder, suffix) for suffix in ("", " again"))
            print(f"| `{command}` | {first:.1f} | {again:.1f} |", flush=True)


def timed(command: str, argv: list[str], folder: Path, suffix: str) -> float:
    """The seconds of a command whose compiled programs are kept in a cache of its own.

    It works in `folder`, and writes to a folder of its name and the suffix; `eval` scores the run
    that the second stage of training left there.
    """
    flag = "--workdir" if argv[0] in ("train", "eval") else "--out"
    place = "train --stage=reg" if argv[0] == "eval" else command + suffix
    cache = folder / "caches" / command
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    run = [sys.executable, "-m", "jaxreg", *argv, f"{flag}={place}"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr[-500:]}")
    return time.perf_counter() - start


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python benchmarks/first_run.py FIXED MOVING")
    main(*sys.argv[1:])
