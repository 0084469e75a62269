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
from jaxreg.models.model import Model
from jaxreg.models.release import load_model
from jaxreg.registration.batch.pairs import FilePair
from jaxreg.registration.deformable.method import Method, load_method
from jaxreg.registration.output.folder import holds_nothing
from jaxreg.registration.output.provenance import segmentation_sha256

DONE, FREE = "done", "free"


class Methods:
    """How the pairs of a run are registered; a network that several of them use is loaded once."""

    def __init__(self):
        """No network has been loaded yet."""
        self._models: dict[Path, Model] = {}

    def of(self, config: RegisterConfig) -> Method:
        """The method of a pair's settings.

        Raises:
            InputError: no such network, a λ that it does not take.
        """
        return load_method(config, load=self._model)

    def _model(self, folder: Path) -> Model:
        if folder not in self._models:
            self._models[folder] = load_model(folder)
        return self._models[folder]


class Ingredients:
    """What decides a result beside its versions: settings, weights, the contents of the files."""

    def __init__(self, config: RegisterConfig, methods: Methods):
        """`config` holds what all pairs share."""
        self.config = config
        self._methods = methods
        self._hashes: dict[str, str | None] = {}

    def of(self, pair: FilePair) -> dict[str, Any]:
        """The ingredients of a pair as its files are now, comparable with `recorded`."""
        config = pair.config(self.config)
        start = config.init if config.init is not None and config.init_mode is None else None
        return {
            "settings": _settings(as_json(config)),
            "weights": self._methods.of(config).weights_sha256,
            "segmentation networks": segmentation_sha256(config),
            "--init file": None if start is None else self._sha256(start),
            "input files": {column: self._sha256(path) for column, path in pair.files.items()},
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
    record = record_in(folder)
    if record is None:
        return "holds something else than a complete result"
    lacking = [name for name in record["outputs_sha256"] if not (folder / name).is_file()]
    if lacking:
        return f"holds a result without its {lacking[0]}"
    own = ingredients.of(pair)
    other = [name for name, value in recorded(record).items() if value != own[name]]
    return f"holds a result of other {other[0]}" if other else DONE


def recorded(record: dict[str, Any]) -> dict[str, Any]:
    """The ingredients that a result's provenance.json names."""
    files = {}
    for side in ("fixed", "moving"):
        for role, file in record[side]["files"].items():
            files[side if role == "image" else f"{side}_{role}"] = file["sha256"]
    model = record["model"]
    found = {
        "settings": _settings(record["command"]),
        "weights": None if model is None else model["weights_sha256"],
        "--init file": record.get("init_sha256"),
        "input files": files,
    }
    if "segmentation_sha256" in record:  # earlier versions did not name them
        found["segmentation networks"] = record["segmentation_sha256"]
    return found


def _settings(command: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's values; what files hold is compared by itself."""
    contents = "model", "segmentation", *OPTIONAL_FILES
    names = [n for n in RegisterConfig.__dataclass_fields__ if n not in contents]
    settings = {name: command.get(name) for name in names}
    direct = bool(settings["optimize_only"])
    for name in ("loss", "steps", "spacing"):  # older records name them where nothing reads them
        given = settings[name]
        default = getattr(DirectSettings(), name) if given is None else given
        settings[name] = default if direct else None
    init = settings["init"] or AUTO
    init = init if init in (*LINEAR_STARTS, AUTO) else "a file"
    return {**settings, "optimize_only": direct, "init": init}


def record_in(folder: Path) -> dict[str, Any] | None:
    """A result's provenance.json; None where there is none, or not one of this kind."""
    try:
        record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kinds = ("command", "fixed", "moving", "metrics", "outputs_sha256")
    if not isinstance(record, dict) or not all(isinstance(record.get(k), dict) for k in kinds):
        return None
    return record


def timings_in(folder: Path) -> dict[str, Any]:
    """A result's timings.json, empty where there is none."""
    try:
        timings = json.loads((folder / "timings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return timings if isinstance(timings, dict) else {}
