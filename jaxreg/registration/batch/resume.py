"""What stands in a pair's folder: its own finished result, room for one, or something else."""

import json
from pathlib import Path
from typing import Any

from jaxreg.configuration.registration import (
    AUTO,
    LINEAR_STARTS,
    OPTIONAL_FILES,
    DirectSettings,
    RegisterConfig,
)
from jaxreg.configuration.serialization import as_json
from jaxreg.io.checksums import file_sha256
from jaxreg.registration.batch.pairs import FilePair
from jaxreg.registration.deformable.method import Method
from jaxreg.registration.output.files import holds_nothing
from jaxreg.registration.output.provenance import init_sha256

DONE, FREE = "done", "free"


class Ingredients:
    """What decides a result beside its versions: settings, weights, the contents of the files."""

    def __init__(self, config: RegisterConfig, method: Method):
        """`config` holds what all pairs share, `method` is what `load_method` gives for it."""
        self.config = config
        self.settings = _settings(as_json(config))
        self.weights_sha256 = method.weights_sha256
        self.init_sha256 = init_sha256(config)
        self._hashes: dict[str, str | None] = {}

    def of(self, pair: FilePair) -> dict[str, Any]:
        """The ingredients of a pair as its files are now, comparable with `recorded`."""
        files = {column: self._sha256(path) for column, path in pair.files.items()}
        return {
            "settings": self.settings,
            "weights": self.weights_sha256,
            "--init file": self.init_sha256,
            "input files": files,
        }

    def _sha256(self, path: str) -> str | None:
        """A file's hash, None where it cannot be read; read once, however many pairs have it."""
        if path not in self._hashes:
            try:
                self._hashes[path] = file_sha256(path)
            except (OSError, ValueError):
                self._hashes[path] = None  # the registration says what is wrong with it
        return self._hashes[path]


def state_of(folder: Path, pair: FilePair, ingredients: Ingredients) -> str:
    """DONE, FREE, or why a folder is neither: what is there, in words.

    A result is done when its record names the settings and files that the pair has now, and every
    file that it names is there. Versions are not compared.
    """
    if holds_nothing(folder):
        return FREE
    record = _record(folder)
    if record is None:
        return "holds something else than a complete result"
    lacking = [name for name in record["outputs_sha256"] if not (folder / name).is_file()]
    if lacking:
        return f"holds a result without its {lacking[0]}"
    own = ingredients.of(pair)
    other = [name for name, value in recorded(record).items() if value != own[name]]
    return f"holds a result of other {other[0]}" if other else DONE


def numbers_in(folder: Path) -> dict[str, float]:
    """The numbers of a finished result."""
    record = _record(folder)
    assert record is not None
    return record["metrics"]


def recorded(record: dict[str, Any]) -> dict[str, Any]:
    """The ingredients that a result's provenance.json names."""
    files = {}
    for side in ("fixed", "moving"):
        for role, file in record[side]["files"].items():
            files[side if role == "image" else f"{side}_{role}"] = file["sha256"]
    model = record["model"]
    return {
        "settings": _settings(record["command"]),
        "weights": None if model is None else model["weights_sha256"],
        "--init file": record.get("init_sha256"),
        "input files": files,
    }


def _settings(command: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's values; what files hold is compared by itself."""
    names = [n for n in RegisterConfig.__dataclass_fields__ if n not in ("model", *OPTIONAL_FILES)]
    settings = {name: command.get(name) for name in names}
    direct = bool(settings["optimize_only"])
    for name in ("loss", "steps", "spacing"):  # older records name them where nothing reads them
        given = settings[name]
        default = getattr(DirectSettings(), name) if given is None else given
        settings[name] = default if direct else None
    init = settings["init"] or AUTO
    init = init if init in (*LINEAR_STARTS, AUTO) else "a file"
    return {**settings, "optimize_only": direct, "init": init}


def _record(folder: Path) -> dict[str, Any] | None:
    """A result's provenance.json, None where there is none, or not one of this kind."""
    try:
        record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kinds = ("command", "fixed", "moving", "metrics", "outputs_sha256")
    if not isinstance(record, dict) or not all(isinstance(record.get(k), dict) for k in kinds):
        return None
    return record
