"""A registration from images to a complete folder of results: what `jaxreg register` does."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.configuration.registration import OPTIONAL_FILES, RegisterConfig
from jaxreg.errors import InputError
from jaxreg.io.atomic import check_inputs_outside, claimed, completed_folder
from jaxreg.io.files import require_file
from jaxreg.io.stored_images import MemoryImage
from jaxreg.registration.deformable.method import Method
from jaxreg.registration.output.checks import Number, Verdict, numbers_of, verdict_of
from jaxreg.registration.output.companions import Companion, check_names, companion_writer
from jaxreg.registration.output.estimate import EstimatedDice, as_record, estimated_dice
from jaxreg.registration.output.files import (
    THUMBNAIL,
    Outputs,
    check_folder,
    holds_nothing,
    make_outputs,
    write_curve,
    write_outputs,
)
from jaxreg.registration.output.halfway import write_halfway
from jaxreg.registration.output.metrics import metrics_of
from jaxreg.registration.output.provenance import file_hashes, provenance_of, provenance_of_settings
from jaxreg.registration.register import Clock, Registration, register_pair
from jaxreg.registration.report.build import report_of
from jaxreg.registration.report.page import write_failure_report, write_report
from jaxreg.registration.report.thumbnail import thumbnail
from jaxreg.registration.report.view3d import view_of, write_view
from jaxreg.runtime import peak_gigabytes


class Finished(NamedTuple):
    """A registered pair, and everything that its folder of results is written from."""

    registration: Registration
    outputs: Outputs
    metrics: dict[str, float]
    estimate: EstimatedDice | None
    numbers: tuple[Number, ...]
    provenance: dict[str, Any]
    clock: Clock
    further: Callable[[Path], None] | None = None
    """Writes files beside those of every registration into the folder."""

    def write(self, out: Path, *, overwrite: bool, every_lam: bool) -> None:
        """Write the folder of results, which appears when it is complete.

        Equal inputs give equal bytes, but for `timings.json`.

        Raises:
            InputError: a folder in use, no space left.
        """
        check_folder(out, overwrite=overwrite)
        result, clock = self.registration, self.clock
        provenance = dict(self.provenance)
        with completed_folder(out) as folder:
            with clock("write"):
                write_outputs(result, self.outputs, folder)
                if every_lam:
                    write_curve(result, folder)
                if self.further is not None:
                    self.further(folder)
            with clock("report"):
                provenance["outputs_sha256"] = file_hashes(list(folder.iterdir()))
                title = f"{result.fixed.path.name} ← {result.moving.path.name}"
                if "report" in result.config.written:
                    report = report_of(result, self.numbers, provenance, self.estimate, title=title)
                    write_report(folder / "report.html", report)
                    picture = thumbnail(report.fixed, report.moved, report.spacing_mm)
                    (folder / THUMBNAIL).write_bytes(picture)
                if "view3d" in result.config.written:
                    moved, jacobian = self.outputs.moved, self.outputs.jacobian
                    view = view_of(result.fixed, moved, jacobian, title=title)
                    write_view(folder / "view3d.html", view)
            provenance["verdict"] = self._verdict_record()
            _write_json(folder / "provenance.json", provenance)
            _write_json(folder / "timings.json", self._timings())

    @property
    def verdict(self) -> Verdict:
        """What the numbers and the warnings say of the result as a whole."""
        return verdict_of(self.numbers, self.registration.warnings)

    def summary(self, out: Path) -> dict[str, Any]:
        """The numbers and the paths of what `write` wrote to `out`, as JSON values."""
        return {
            "out": str(out),
            "files": {path.name: str(path) for path in sorted(out.iterdir())},
            "metrics": self.metrics,
            "estimated_dice": as_record(self.estimate),
            "verdict": self._verdict_record(),
            "warnings": list(self.registration.warnings),
            **self._timings(),
        }

    def _verdict_record(self) -> dict[str, Any]:
        return {"state": self.verdict.state, "reasons": list(self.verdict.reasons)}

    def lines(self) -> list[str]:
        """The numbers, a line each."""
        marks = {"warn": " (look)", "fail": " (most likely wrong)"}
        return [f"{n.name}: {n.value}{marks.get(n.status, '')}" for n in self.numbers]

    def _timings(self) -> dict[str, Any]:
        seconds = {name: round(value, 3) for name, value in self.clock.seconds.items()}
        return {"seconds": seconds, "peak_gigabytes": round(peak_gigabytes(), 3)}


def register_images(
    fixed: Path | MemoryImage,
    moving: Path | MemoryImage,
    config: RegisterConfig,
    *,
    in_memory: Mapping[str, MemoryImage] | None = None,
    start: Float[np.ndarray, "4 4"] | None = None,
    say: Callable[[str], None] = print,
    clock: Clock | None = None,
    method: Method | None = None,
    also: Sequence[Path | MemoryImage] | None = None,
) -> Finished:
    """Register two images; writes nothing.

    `in_memory` has masks and label maps that no file holds, by the name of their setting, `start` a
    linear start. `clock` may have been started before; `method` is what `load_method` gives for
    `config`, where several pairs share it. `also` are images that go by the same map, in place of
    those of `config`.

    Raises:
        InputError: wrong images or settings.
    """
    clock, given = clock or Clock(), in_memory or {}
    companions = tuple(Companion(image, None) for image in (config.also if also is None else also))
    check_names(moving, companions)
    provenance = provenance_of_settings(fixed, moving, config, in_memory=given)
    result = register_pair(
        fixed, moving, config, clock, in_memory=given, start=start, say=say, method=method
    )
    with clock("whole map, moved images"):
        outputs = make_outputs(result)
    with clock("estimated Dice"):
        estimate = estimated_dice(result)
    with clock("numbers"):
        metrics = metrics_of(result, outputs, estimate)
        numbers = numbers_of(result, metrics)
        provenance |= provenance_of(result, metrics, estimate)
        if companions:
            provenance["also"] = [companion.record() for companion in companions]
    write_also = companion_writer(result, companions)

    def further(folder: Path) -> None:
        write_also(folder)
        if config.halfway:
            write_halfway(result, folder)

    return Finished(result, outputs, metrics, estimate, numbers, provenance, clock, further)


def register_files(
    fixed: Path,
    moving: Path,
    out: Path,
    config: RegisterConfig,
    *,
    overwrite: bool = False,
    every_lam: bool = False,
    say: Callable[[str], None] = print,
    detail: Callable[[str], None] | None = None,
    clock: Clock | None = None,
    method: Method | None = None,
) -> Finished:
    """Register two files and write the folder of results.

    When a pair fails, `report.html` with the reason stands there alone, unless an earlier run does.
    `every_lam` adds the sweep's curve and moved images. `say` gets the lines for the user, `detail`
    those on settings, seconds and memory. `clock` and `method` are as for `register_images`.

    Raises:
        InputError: wrong files or settings, a folder in use, no space left.
    """
    images = (fixed, moving)
    for path in images:
        require_file(path)
    return fill_folder(
        out,
        _inputs(fixed, moving, config),
        functools.partial(register_images, *images, config, say=say, clock=clock, method=method),
        functools.partial(provenance_of_settings, *images, config),
        overwrite=overwrite,
        every_lam=every_lam,
        say=say,
        detail=detail or say,
    )


def fill_folder(
    out: Path,
    inputs: Sequence[Path],
    work: Callable[[], Finished],
    settings: Callable[[], dict[str, Any]],
    *,
    overwrite: bool,
    every_lam: bool = False,
    say: Callable[[str], None],
    detail: Callable[[str], None],
) -> Finished:
    """Do the `work` of a registration and write its folder of results.

    `inputs` are the files that it reads, and `settings` gives what its record says of a run that
    fails.

    Raises:
        InputError: a folder in use or with an input in it, no space left, and what `work` raises.
    """
    check_folder(out, overwrite=overwrite)
    check_inputs_outside(out, inputs)
    with claimed(out):
        check_folder(out, overwrite=overwrite)
        return _fill_claimed(out, work, settings(), overwrite, every_lam, say, detail)


def _inputs(fixed: Path, moving: Path, config: RegisterConfig) -> list[Path]:
    """All files that a registration reads."""
    given = [getattr(config, name) for name in (*OPTIONAL_FILES, "model")]
    init = None if config.init is None or config.init_mode is not None else Path(config.init)
    return [path for path in (fixed, moving, init, *given, *config.also) if path is not None]


def _fill_claimed(out, work, known, overwrite, every_lam, say, detail) -> Finished:
    """As `fill_folder`, into a folder that no other process writes."""
    given = ((k, v) for k, v in known["command"].items() if v is not None)
    detail("settings: " + ", ".join(f"{name} = {value}" for name, value in given))
    try:
        finished = work()
    except InputError as error:
        raise InputError(f"{error}{_write_failure(out, error, known)}") from error
    except BrokenPipeError:  # nobody reads what `say` prints: an interruption, no failure
        raise
    except Exception as error:
        error.add_note(_write_failure(out, error, known))
        raise
    finished.write(out, overwrite=overwrite, every_lam=every_lam)
    for line in finished.lines():
        say(line)
    seconds = finished.clock.seconds
    spent = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    detail(f"seconds: {spent}; in all {sum(seconds.values()):.1f}")
    detail(f"peak memory: {peak_gigabytes():.2f} GB")
    say(str(finished.verdict))
    look = (
        f"; look at {out / 'report.html'}"
        if "report" in finished.registration.config.written
        else ""
    )
    say(f"results are in {out}{look}")
    return finished


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are no text


def _write_failure(out: Path, error: Exception, provenance: dict[str, Any]) -> str:
    """Leave the reason in `out`, where no earlier run stands; returns what to add if it failed."""
    if not holds_nothing(out):
        return ""
    try:
        with completed_folder(out) as folder:
            write_failure_report(folder / "report.html", str(error), provenance)
    except InputError as second:
        return f" (No report of it either: {second})"
    return ""
