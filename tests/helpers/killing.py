"""Training runs killed with SIGKILL again and again, for tests and as a script.

`python tests/helpers/killing.py --kills=50` makes a phantom cohort and a reference run in a
temporary folder, kills a second run at 50 random moments, starts it again each time, and compares.
What runs is `job.py`: the real loop, data and checkpoints with a loss that compiles in no time;
with `--stage=ae` stage 1 as it is. Runs are forked from a process that has imported everything.
"""

import argparse
import glob
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import job
from orbax.checkpoint import v1 as ocp
from tensorboardX.proto import event_pb2

from jaxreg import cli
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.models.checkpoint import parameters_sha256
from jaxreg.training import train

ROOT = Path(__file__).resolve().parents[2]
STEPS_PER_KILL = 12
PARTS = "last step", "parameters and optimiser", "validation.csv", "TensorBoard"


def tiny_cohort(folder: Path) -> Path:
    """A cohort of 16³ voxels that a step takes a fraction of a second with."""
    subjects = {"train": 2, "val": 2}
    return write_phantom_cohort(folder, shape=(16, 16, 16), spacing_mm=12.0, subjects=subjects)


def command(cohort: Path, workdir: Path, steps: int, *flags: str) -> list[str]:
    """A run of stage 1 that saves every 2 and validates every 4 steps."""
    fixed = [
        "--stage=ae",
        f"--data={cohort}",
        "--checkpoint-every=2",
        "--validate-every=4",
    ]
    return [
        sys.executable,
        str(ROOT / "train.py"),
        *fixed,
        f"--workdir={workdir}",
        f"--steps={steps}",
        "--log-every=1",
        *flags,
    ]


def environment(**more: str) -> dict[str, str]:
    """One CPU device, this checkout's jaxreg."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT), **more}


def start(argv: list[str], output: Path) -> subprocess.Popen:
    """The command in a process of its own, both streams added to a file."""
    with output.open("ab") as file:
        return subprocess.Popen(argv, stdout=file, stderr=file, env=environment(), cwd=ROOT)


def wait_until(condition, process: Any, *, seconds: float = 240.0) -> bool:
    """Whether `condition` came true before the process or the time ended.

    The process is asked first: what it did before its end counts, however late somebody looks.
    """
    end = time.monotonic() + seconds
    while True:
        over = process.poll() is not None or time.monotonic() >= end
        if condition():
            return True
        if over:
            return False
        time.sleep(0.005)


def steps_saved(workdir: Path) -> list[int]:
    """Steps with a checkpoint folder."""
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


class Fork:
    """A run of `train` in a forked process, like a `Popen` of it."""

    def __init__(self, flags: list[str], output: Path):
        """Start it; both streams are added to a file."""
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run_and_exit(flags, output)

    def poll(self) -> int | None:
        """The exit code once it has ended."""
        return self.wait(os.WNOHANG)

    def wait(self, options: int = 0) -> int | None:
        """Wait for the end; the exit code, negative for a signal."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _run_and_exit(flags: list[str], output: Path) -> None:
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    code = 1
    try:
        code = cli.main(["train", *flags])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def kill_somewhere(process: Fork, workdir: Path, rng: random.Random) -> str:
    """Kill a run at a random moment of its work; returns during what.

    A third of the kills come while a checkpoint is being written, a third right after one of a step
    that is validated, a third at any time in the next second and a half.
    """
    folder, before = workdir / "checkpoints", steps_saved(workdir)
    wanted = rng.choice(["checkpoint write", "validation", "anywhere"])
    conditions = {
        "checkpoint write": lambda: glob.glob(f"{folder}/partial*/*"),
        "validation": lambda: any(s % 4 == 0 for s in set(steps_saved(workdir)) - set(before)),
        "anywhere": lambda: set(steps_saved(workdir)) - set(before),
    }
    wait_until(conditions[wanted], process)
    longest = {"checkpoint write": 0.1, "validation": 0.2, "anywhere": 1.5}[wanted]
    time.sleep(rng.uniform(0, longest))
    if process.poll() is not None:
        return "after the end"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return "checkpoint write" if glob.glob(f"{folder}/partial*") else wanted


def killed_run(cohort: Path, folder: Path, *, kills: int, seed: int) -> Counter:
    """A reference run in `folder`/whole and one killed `kills` times in `folder`/killed."""
    steps = STEPS_PER_KILL * kills
    output = folder / "output.txt"
    whole, killed = folder / "whole", folder / "killed"
    assert Fork(command(cohort, whole, steps)[2:], output).wait() == 0, output.read_text()
    rng, moments = random.Random(seed), Counter()
    while moments.total() < kills:
        process = Fork(command(cohort, killed, steps)[2:], output)
        moment = kill_somewhere(process, killed, rng)
        if moment == "after the end":
            break
        moments[moment] += 1
    assert Fork(command(cohort, killed, steps)[2:], output).wait() == 0, output.read_text()
    return moments


def outcome(workdir):
    """What a run ended with: hashes of its last parameters and optimiser, its validation table."""
    newest = workdir / "checkpoints" / str(steps_saved(workdir)[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Orbax: no sharding was asked for
        loaded = ocp.load_checkpointables(str(newest), {"params": None, "optimizer": None})
    hashes = {name: parameters_sha256(tree) for name, tree in loaded.items()}
    return newest.name, hashes, (workdir / "validation.csv").read_text(), curve(workdir)


def curve(workdir):
    """Scalars by tag and step as TensorBoard shows them: a restart voids steps from its own on."""
    shown = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at + 12 <= len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = getattr(event_pb2, "Event").FromString(data[at + 12 : at + 12 + size])  # noqa: B009
            at += 16 + size
            if at > len(data):
                break  # cut off while it was written, which readers pass over
            if event.HasField("session_log"):
                shown = {k: v for k, v in shown.items() if k[1] < event.step}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    shown[value.tag, event.step] = value.simple_value
    return shown


def main() -> None:
    """Print how often which moment was hit, and whether both runs ended alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", default="job")
    arguments = parser.parse_args()
    if arguments.stage == "job":
        sys.argv.append(job.PAUSE)
        train.autoencoder_task = job.task
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), time.monotonic()
        cohort = tiny_cohort(folder / "cohort")
        moments = killed_run(cohort, folder, kills=arguments.kills, seed=arguments.seed)
        parts = zip(PARTS, outcome(folder / "whole"), outcome(folder / "killed"), strict=True)
        differ = [f"{name}: {one} against {other}" for name, one, other in parts if one != other]
        left = sorted(p.name for p in (folder / "killed" / "checkpoints").iterdir())
        words = ", ".join(f"{n} × {moment}" for moment, n in moments.items())
        print(f"{moments.total()} kills ({words}), {time.monotonic() - begin:.0f} s")
        print("the same:", ", ".join(PARTS) if not differ else "no", *differ, sep="\n  ")
        print(f"in the folder of checkpoints: {', '.join(left)}")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
