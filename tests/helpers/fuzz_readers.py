"""Every reader on mutated files: only InputError, in bounded time and memory, nothing written.

A RuntimeWarning of NumPy counts as a failure too. `python tests/helpers/fuzz_readers.py
--count=10000` prints a line for each reader and every failure; the suite runs a shorter campaign.
The inputs are a function of the seed.
"""

import argparse
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import SimpleITK as sitk
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.nifti1 import Nifti1Image

from jaxreg.data.cohort import read_cohort
from jaxreg.data.label_codes import CLASSES
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Volume
from jaxreg.io import checksums
from jaxreg.io.displacement_fields import read_field, write_field
from jaxreg.io.headers import read_header
from jaxreg.io.images import (
    read_grid,
    read_image,
    read_labels,
    write,
)
from jaxreg.io.itk_transforms import read_transform, write_affine
from jaxreg.io.points import read_points
from jaxreg.io.series import read_series
from jaxreg.models.checkpoint import Checkpoints, Meta, open_run
from jaxreg.models.release import SHIPPED, read_release
from jaxreg.models.segmentation_model import (
    RESOLUTIONS,
    read_segmentation_model,
    write_segmentation_model,
)
from jaxreg.networks.segmentation_unet import SegmentationUNet
from jaxreg.registration.batch.pairs import read_pairs

SECONDS = 5.0
MEMORY_BYTES = 2 << 30
PARAMS = {"w": np.arange(6, dtype=np.float32), "b": {"c": np.zeros((2, 2), np.float32)}}
EXTREMES = [0, 1, -1, 2, 127, 255, 30_000, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1]

TEXTS = [b"\0", b"\t", b"\n", b'"', b"../", b"nan", b"1e999", b"9" * 5000, b"\xff", "²".encode()]


class Target(NamedTuple):
    """A reader: its sample file or folder, what reads one like it, its share of the cases.

    Of a folder one of the files that `damaged` matches is mutated; `reseal` then writes its hashes
    anew in half the cases, so that they do not refuse everything.
    """

    file: str
    read: Callable[[Path], Any]
    share: float
    damaged: str = ""
    reseal: Callable[[Path], None] | None = None


class Outcome(NamedTuple):
    """What became of one case: `accepted`, `refused`, or a failure with its words."""

    kind: str
    words: str = ""


def samples(folder: Path) -> None:
    """One good file of each kind in a folder."""
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    image = Volume(20 * rng.integers(0, 45, (6, 7, 5)).astype(np.int16), affine)
    for name in ("image.nii", "image.nii.gz"):
        write(folder / name, image)
    write(folder / "float.nii.gz", Volume(rng.normal(size=(6, 7, 5)).astype(np.float32), affine))
    single: Any = image.array.astype(np.float32)
    mgh = MGHImage(single, affine)
    for name in ("image.mgz", "image.mgh"):
        mgh.to_filename(folder / name)
    write_field(
        folder / "warp.nii.gz", Field(rng.normal(size=(4, 5, 3, 3)).astype(np.float32), affine)
    )
    series = Nifti1Image(rng.integers(0, 900, (6, 7, 5, 3)).astype(np.int16), affine)
    series.to_filename(folder / "series.nii.gz")
    (folder / "pairs.tsv").write_text(
        "name\tfixed\tmoving\tfixed_mask\none\ta.nii\tb.nii\tm.nii\n\tc.nii\td.nii\tn/a\n",
        encoding="utf-8",
    )
    _segmentation_networks(folder / "segmentation")
    shutil.copytree(SHIPPED, folder / "release")
    (folder / "points.csv").write_text("x,y,z,name\n" + "1.5,-2,3e1,a\n" * 9, encoding="utf-8")
    (folder / "participants.tsv").write_text(
        "participant_id\tsplit\nsub-01\ttrain\nsub-02\tval\nsub-ä\ttest\n", encoding="utf-8"
    )
    (folder / "labels.tsv").write_text("index\tname\n2\tWhite\n41\tMatter\n", encoding="utf-8")
    for suffix in ("mat", "tfm", "txt"):
        write_affine(folder / f"affine.{suffix}", affine)
    composite = sitk.CompositeTransform(3)
    composite.AddTransform(sitk.AffineTransform(3))
    vectors = sitk.GetImageFromArray(rng.normal(size=(4, 5, 6, 3)), isVector=True)
    composite.AddTransform(sitk.DisplacementFieldTransform(vectors))
    sitk.WriteTransform(composite, str(folder / "composite.h5"))
    checkpoints = Checkpoints(folder / "run")
    checkpoints.require_writable()
    for step in (2, 4):
        meta = Meta("ae", {"a": 1}, {"seed": 0}, {"next_index": step}, step)
        checkpoints.save(meta, PARAMS, {"count": np.full(1, step, np.int32)})


def _segmentation_networks(folder: Path) -> None:
    channels = (2, 3)
    image = np.zeros((1, 4, 4, 4, 1), np.float32)
    params = SegmentationUNet(channels, CLASSES).init(jax.random.key(0), image)["params"]
    folder.mkdir()
    both: dict[str, Any] = dict.fromkeys(RESOLUTIONS, params)
    write_segmentation_model(folder, both, dict.fromkeys(RESOLUTIONS, channels), about="")


def _seal_segmentation(folder: Path) -> None:
    """Write the hashes of the networks as they are now, where the description can be read."""
    path = folder / "model.json"
    try:
        described = json.loads(path.read_bytes())
        for name in RESOLUTIONS:
            content = (folder / f"{name}.npz").read_bytes()
            described["sha256"][name] = hashlib.sha256(content).hexdigest()
    except (ValueError, KeyError, TypeError):
        return  # damaged itself: that is what the reader then gets
    path.write_text(json.dumps(described), encoding="utf-8")


def _series(path: Path) -> None:
    read_header(path, series=True)
    series = read_series(path)
    for _ in () if series is None else series.volumes():
        pass


def _volume(path: Path) -> None:
    read_grid(path)
    for read in (read_image, read_labels):
        read(path)


def _cohort(path: Path) -> None:
    """A cohort of one good image, one of whose tables is mutated."""
    folder = path.parent / "cohort"
    (folder / "sub-01").mkdir(parents=True, exist_ok=True)
    image = path.parent.parent / "samples" / "image.nii.gz"
    shutil.copyfile(image, folder / "sub-01" / "sub-01_T1w.nii.gz")
    for name in ("participants.tsv", "labels.tsv"):
        good = path.parent.parent / "samples" / name
        shutil.copyfile(path if path.name == name else good, folder / name)
    cohort = read_cohort(folder)
    for subject in cohort.participants:
        inside = cohort.file(subject, "T1w").resolve()
        assert inside.is_relative_to(folder.resolve()), f"{inside} is outside"
    Volumes(cohort, [(p, "T1w") for p in cohort.members("train", "T1w")])


def _checkpoint(path: Path) -> None:
    checkpoints, meta = open_run(path, "ae")
    checkpoints.params(meta.step, PARAMS)
    checkpoints.optimizer(meta.step, {"count": np.zeros(1, np.int32)})


_NEWEST = Path("checkpoints", "4")
TARGETS = [
    Target("image.nii", _volume, 0.14),
    Target("image.nii.gz", _volume, 0.14),
    Target("float.nii.gz", read_image, 0.06),
    Target("image.mgz", _volume, 0.1),
    Target("image.mgh", _volume, 0.08),
    Target("warp.nii.gz", read_field, 0.1),
    Target("points.csv", read_points, 0.08),
    Target("participants.tsv", _cohort, 0.08),
    Target("labels.tsv", _cohort, 0.04),
    Target("affine.mat", read_transform, 0.05),
    Target("affine.tfm", read_transform, 0.04),
    Target("affine.txt", read_transform, 0.03),
    Target("composite.h5", read_transform, 0.06),
    Target("run", _checkpoint, 0.03, "checkpoints/4/**/*", lambda f: checksums.seal(f / _NEWEST)),
    Target("series.nii.gz", _series, 0.06),
    Target("pairs.tsv", read_pairs, 0.03),
    Target("segmentation", read_segmentation_model, 0.02, "*", _seal_segmentation),
    Target("release", read_release, 0.01, "*"),
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A damaged copy; of a compressed file sometimes the contents are damaged, not the packing."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        return gzip.compress(mutate(gzip.decompress(data), rng), 1, mtime=0)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(out), 600) if rng.random() < 0.7 else len(out)) if out else 0
        end = at + rng.choice((1, 2, 4, 8, 64, 4096))
        kind = rng.randrange(8)
        if kind == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at] = rng.randrange(256)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        elif kind == 5:
            out[at:at] = rng.randbytes(end - at)
        elif kind == 6:
            out[at : at + 8] = _extreme(rng)
        else:
            text = rng.choice(TEXTS)
            out[at : at + rng.choice((0, len(text)))] = text
    return bytes(out)


def _extreme(rng: random.Random) -> bytes:
    """A number from the edge of its type, as a header may hold it."""
    code, order = rng.choice("hiqfd"), rng.choice("<>")
    if code in "fd":
        return struct.pack(order + code, rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"))))
    width = 8 * struct.calcsize(code)
    value = rng.choice(EXTREMES) % (1 << width)
    return value.to_bytes(width // 8, "little" if order == "<" else "big")


def attempt(target: Target, path: Path) -> Outcome:
    """What a reader does with a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            target.read(path)
    except InputError as error:
        message = str(error)
        if "\n" in message.strip() or "Unable to allocate" in message or "MemoryError" in message:
            return Outcome("bad message", message[:300])
        return Outcome("refused")
    except BaseException:
        return Outcome("traceback", traceback.format_exc()[-700:])
    return Outcome("accepted")


def _work(number: int, first: int, last: int, seed: int, folder: str, connection) -> None:
    """Cases `first` to `last` of a target, each reported before and after."""
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    target, place = TARGETS[number], Path(folder)
    sample, path = place / "samples" / target.file, place / "work" / target.file
    before = _peak_bytes()
    for case in range(first, last):
        rng = random.Random(f"{seed} {number} {case}")
        if sample.is_dir():
            _damaged_folder(target, sample, path, rng)
        else:
            path.write_bytes(mutate(sample.read_bytes(), rng))
        connection.send((case, None, 0.0, 0))
        begin = time.process_time()
        outcome = attempt(target, path)
        seconds = time.process_time() - begin
        connection.send((case, outcome, seconds, _peak_bytes() - before))
    connection.close()


def _damaged_folder(target: Target, sample: Path, path: Path, rng: random.Random) -> None:
    """A copy of a folder with one of its files mutated."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(sample, path)
    victim = rng.choice(sorted(p for p in path.glob(target.damaged) if p.is_file()))
    victim.write_bytes(mutate(victim.read_bytes(), rng))
    if target.reseal is not None and rng.random() < 0.5:
        target.reseal(path)


def _peak_bytes() -> int:
    """The most memory that this process has held since it started (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class Tally:
    """Counts of one target, and what went wrong."""

    def __init__(self):
        """Start at zero."""
        self.kinds: dict[str, int] = {}
        self.failures: list[str] = []
        self.seconds = 0.0
        self.grown = 0

    def add(self, name: str, case: int, outcome: Outcome, seconds: float, grown: int) -> None:
        """Count a case."""
        self.kinds[outcome.kind] = self.kinds.get(outcome.kind, 0) + 1
        self.seconds, self.grown = max(self.seconds, seconds), max(self.grown, grown)
        if outcome.kind not in ("accepted", "refused"):
            self.failures.append(f"{name} case {case}: {outcome.kind}: {outcome.words}")
        if seconds > SECONDS:
            self.failures.append(f"{name} case {case}: {seconds:.1f} s")
        if grown > MEMORY_BYTES:
            self.failures.append(f"{name} case {case}: {grown >> 20} MB")


def fuzz(number: int, count: int, seed: int, folder: Path) -> Tally:
    """`count` cases of a target in a process of its own, a new one after each crash or hang."""
    name, tally, first = TARGETS[number].file, Tally(), 0
    context = multiprocessing.get_context("spawn")
    while first < count:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (number, first, count, seed, str(folder), sender)
        process = context.Process(target=_work, args=arguments)
        process.start()
        sender.close()
        case, done = first, False
        while not done:
            if not receiver.poll(400):  # wall time: the machine may be busy with other things
                process.kill()
                tally.add(name, case, Outcome("hang"), 400.0, 0)
                break
            try:
                case, outcome, seconds, grown = receiver.recv()
            except EOFError:
                done = True
                continue
            if outcome is not None:
                tally.add(name, case, outcome, seconds, grown)
                first = case + 1
        process.join()
        if done and first < count:
            tally.add(name, case, Outcome("crash", f"exit code {process.exitcode}"), 0.0, 0)
        first = max(first, case + 1)
    return tally


def campaign(count: int, seed: int, folder: Path) -> dict[str, Tally]:
    """About `count` cases over all targets."""
    for name in ("samples", "work"):
        (folder / name).mkdir()
    samples(folder / "samples")
    for target in TARGETS:
        outcome = attempt(target, folder / "samples" / target.file)
        assert outcome.kind == "accepted", f"{target.file}, undamaged: {outcome}"
    shares = enumerate(TARGETS)
    return {t.file: fuzz(n, max(1, round(count * t.share)), seed, folder) for n, t in shares}


def main() -> None:
    """Run a campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tallies = campaign(arguments.count, arguments.seed, Path(name))
    for file, tally in tallies.items():
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(tally.kinds.items()))
        print(f"{file}: {kinds}; at most {tally.seconds:.2f} s, {tally.grown >> 20} MB")
    failures = [line for tally in tallies.values() for line in tally.failures]
    total = sum(sum(t.kinds.values()) for t in tallies.values())
    print(f"{total} cases, {len(failures)} failures")
    for line in failures[:40]:
        print(line)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
