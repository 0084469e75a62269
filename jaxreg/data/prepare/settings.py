"""`prepare.json`: the settings of a cohort, by which it is continued and by no others."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxreg.configuration.preparation import PrepareConfig
from jaxreg.errors import InputError
from jaxreg.io.atomic import claimed, completed, entries
from jaxreg.io.checksums import file_sha256


@contextlib.contextmanager
def claimed_cohort(config: PrepareConfig, splits: dict[str, str]) -> Iterator[None]:
    """Write the settings into a new folder, or compare them with those of an existing one.

    Meanwhile no other process may write there.

    Raises:
        InputError: another folder than a cohort's, or a cohort of other settings or subjects.
    """
    template = config.template and file_sha256(config.template)
    settings = {
        "layout": config.layout,
        "source": str(config.source.resolve()),
        "spacing": config.spacing,
        "split": config.split,
        "seed": config.seed,
        "template": template,
        "labels": config.labels,
        "entities": config.entities,
        "extract": config.extract,
        "segmentation": config.segmentation and str(config.segmentation.resolve()),
        "participants": splits,
    }
    path = config.out / "prepare.json"
    if not path.is_file() and config.out.exists():
        if not config.out.is_dir() or entries(config.out):
            raise InputError(
                f"{config.out}: expected a new or empty folder, or a cohort to continue."
            )
    config.out.mkdir(parents=True, exist_ok=True)
    with claimed(config.out):
        if path.is_file():
            _compare(path, settings)
        else:
            with completed(path) as partial:
                partial.write_text(json.dumps(settings, indent=1) + "\n")
        yield


_BEFORE = {"extract": "never"}
"""What settings mean that say nothing of it."""


def _compare(path: Path, settings: dict[str, Any]) -> None:
    try:
        before = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: expected the settings of `prepare` ({error}).") from error
    before = _BEFORE | before
    for name, value in settings.items():
        if name == "participants" and before.get(name) != value:
            raise InputError(f"{path}: expected the same subjects and splits; give another --out.")
        if before.get(name) != value:
            raise InputError(
                f"{path}: expected the settings it was made with, --{name} {before.get(name)}; "
                f"got {value}; give another --out."
            )
