"""A registered pair with everything that its folder of results is written from."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.io.atomic import completed_folder
from jaxreg.io.stored_images import MemoryImage
from jaxreg.registration.clock import Clock
from jaxreg.registration.deformable.method import Method
from jaxreg.registration.inputs import Subject
from jaxreg.registration.moved import Notes
from jaxreg.registration.output.checks import Number, Verdict, numbers_of, verdict_of
from jaxreg.registration.output.companions import Companion, check_names, companion_writer
from jaxreg.registration.output.estimate import EstimatedDice, as_record, estimated_dice
from jaxreg.registration.output.files import Outputs, make_outputs, write_curve, write_outputs
from jaxreg.registration.output.folder import THUMBNAIL, check_folder
from jaxreg.registration.output.halfway import write_halfway
from jaxreg.registration.output.metrics import metrics_of
from jaxreg.registration.output.provenance import file_hashes, provenance_of
from jaxreg.registration.output.settings import provenance_of_settings
from jaxreg.registration.register import Registration, register_pair
from jaxreg.registration.report.build import report_of
from jaxreg.registration.report.page import write_report
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
    fixed: Path | MemoryImage | Subject,
    moving: Path | MemoryImage | Subject,
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

    Where a side is a `Subject`, its files have been read. `in_memory` has masks and label maps that
    no file holds, by the name of their setting, `start` a linear start. `clock` may have been
    started before; `method` is what `load_method` gives for `config`, where several pairs share it.
    `also` are images that go by the same map, in place of those of `config`.

    Raises:
        InputError: wrong images or settings.
    """
    clock, given = clock or Clock(), in_memory or {}
    companions = tuple(Companion(image, None) for image in (config.also if also is None else also))
    named = [image.path if isinstance(image, Subject) else image for image in (fixed, moving)]
    check_names(named[1], companions)
    notes = Notes()
    for companion in companions:
        companion.check(notes)
    for line in notes.lines():
        say(line)
    provenance = provenance_of_settings(named[0], named[1], config, in_memory=given)
    result = register_pair(
        fixed, moving, config, clock, in_memory=given, start=start, say=say, method=method
    )
    result = result._replace(warnings=(*notes.warnings, *result.warnings))
    for companion in companions:
        companion.check_overlap(result)
    with clock("estimated Dice"):  # before the whole map, which takes the memory
        estimate = estimated_dice(result)
    with clock("whole map, moved images"):
        outputs = make_outputs(result)
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


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are no text
