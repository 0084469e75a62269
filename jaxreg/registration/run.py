"""A registration from files to a complete folder of results: what `jaxreg register` does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import InputError
from jaxreg.io.atomic import completed_folder
from jaxreg.registration.deformable.method import Method
from jaxreg.registration.output.checks import numbers_of
from jaxreg.registration.output.files import (
    check_folder,
    make_outputs,
    write_curve,
    write_outputs,
)
from jaxreg.registration.output.metrics import metrics_of
from jaxreg.registration.output.provenance import file_hashes, provenance_of, provenance_of_settings
from jaxreg.registration.register import Clock, register_pair
from jaxreg.registration.report.build import report_of
from jaxreg.registration.report.page import write_failure_report, write_report
from jaxreg.runtime import peak_gigabytes


def register_files(
    fixed: Path,
    moving: Path,
    out: Path,
    config: RegisterConfig,
    *,
    overwrite: bool = False,
    every_lam: bool = False,
    say: Callable[[str], None] = print,
    clock: Clock | None = None,
    method: Method | None = None,
) -> dict[str, float]:
    """Register two files and write the results' folder; returns the numbers.

    The folder appears when it is complete. When a pair fails, `report.html` with the reason stands
    there alone, unless an earlier run does. `every_lam` adds the sweep's curve and moved images.
    `clock` may have been started before; `method` is what `load_method` gives for `config`, where
    several pairs share it. Equal inputs give equal bytes, but for `timings.json`.

    Raises:
        InputError: wrong files or settings, a folder in use, no space left.
    """
    check_folder(out, overwrite=overwrite)
    for path in (fixed, moving):
        if not path.is_file():
            raise InputError(f"{path}: no such file.")
    provenance = provenance_of_settings(fixed, moving, config)
    given = ((k, v) for k, v in provenance["command"].items() if v is not None)
    say("settings: " + ", ".join(f"{name} = {value}" for name, value in given))
    clock = clock or Clock()
    try:
        result = register_pair(fixed, moving, config, clock, say=say, method=method)
        with clock("whole map, moved images"):
            outputs = make_outputs(result)
        with clock("numbers"):
            metrics = metrics_of(result, outputs)
            numbers = numbers_of(result, metrics)
            provenance |= provenance_of(result, metrics)
    except InputError as error:
        raise InputError(f"{error}{_write_failure(out, error, provenance)}") from error
    except Exception as error:
        error.add_note(_write_failure(out, error, provenance))
        raise
    with completed_folder(out) as folder:
        with clock("write"):
            write_outputs(result, outputs, folder)
            if every_lam:
                write_curve(result, folder)
        with clock("report"):
            provenance["outputs_sha256"] = file_hashes(list(folder.iterdir()))
            title = f"{fixed.name} ← {moving.name}"
            write_report(
                folder / "report.html", report_of(result, numbers, provenance, title=title)
            )
        _write_json(folder / "provenance.json", provenance)
        seconds = {name: round(value, 3) for name, value in clock.seconds.items()}
        timings = {"seconds": seconds, "peak_gigabytes": round(peak_gigabytes(), 3)}
        _write_json(folder / "timings.json", timings)
    for number in numbers:
        mark = " (warning)" if number.status == "warn" else ""
        say(f"{number.name}: {number.value}{mark}")
    spent = ", ".join(f"{name} {value:.1f}" for name, value in clock.seconds.items())
    say(f"seconds: {spent}; in all {sum(clock.seconds.values()):.1f}")
    say(f"peak memory: {peak_gigabytes():.2f} GB")
    say(f"results are in {out}; look at {out / 'report.html'}")
    return metrics


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_failure(out: Path, error: Exception, provenance: dict[str, Any]) -> str:
    """Leave the reason in `out`, where no earlier run stands; returns what to add if it failed."""
    if out.is_dir() and any(p.name != "report.html" for p in out.iterdir()):
        return ""
    try:
        with completed_folder(out) as folder:
            write_failure_report(folder / "report.html", str(error), provenance)
    except InputError as second:
        return f" (No report of it either: {second})"
    return ""
