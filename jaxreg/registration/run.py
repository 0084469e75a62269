"""Two files registered into a folder of results, or into a page that says why there are none.

JAX is imported when the files have been read, so that one that is refused is refused soon.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxreg.configuration.registration import OPTIONAL_FILES, RegisterConfig
from jaxreg.errors import InputError
from jaxreg.io.atomic import check_inputs_outside, claimed, completed_folder
from jaxreg.io.files import require_file
from jaxreg.registration.clock import START, Clock
from jaxreg.registration.inputs import read_side
from jaxreg.registration.output.folder import check_folder, holds_nothing
from jaxreg.registration.output.settings import provenance_of_settings
from jaxreg.registration.report.html import write_failure_report
from jaxreg.runtime import peak_gigabytes

if TYPE_CHECKING:
    from jaxreg.registration.deformable.method import Method
    from jaxreg.registration.finished import Finished


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
    clock = clock or Clock()

    def work() -> Finished:
        with clock("read"):
            sides = read_side("fixed", fixed, config), read_side("moving", moving, config)
        with clock(START):
            from jaxreg.registration.finished import register_images
        return register_images(*sides, config, say=say, clock=clock, method=method)

    return fill_folder(
        out,
        _inputs(fixed, moving, config),
        work,
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
