"""The columns of a table of pairs: files, and the settings that a pair may have of its own.

A setting of a pair takes the place of the flag of the same name.
"""

import dataclasses
import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jaxreg.configuration.registration import (
    AUTO,
    LINEAR_STARTS,
    OPTIONAL_FILES,
    RegisterConfig,
)
from jaxreg.errors import InputError

SETTINGS = (
    "transform",
    "same_subject",
    "halfway",
    "lam",
    "init",
    "domains",
    "extract",
    "optimize_only",
    "loss",
    "steps",
    "spacing",
    "refine",
    "passes",
    "label_weight",
)
"""Fields of `RegisterConfig`; networks and what is written are those of all pairs."""
COLUMNS = ("name", "fixed", "moving", *OPTIONAL_FILES, *SETTINGS)
_HINTS = get_type_hints(RegisterConfig)
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def require_known(names: Collection[str | None], where: str) -> None:
    """Raise InputError unless every column is one of `COLUMNS`; `where` begins the message."""
    for name in names:
        if name is None:
            raise InputError(f"{where}: more values than columns.")
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            advice = f"did you mean {near[0]}?" if near else f"expected {', '.join(COLUMNS)}."
            raise InputError(f"{where}: unknown column {name!r}; {advice}")


def setting_of(column: str, text: str, where: str) -> Any:
    """The value that a cell gives a setting; what it may be, the configuration says.

    Raises:
        InputError: text in place of a number or a truth value.
    """
    kinds = {kind for kind in _kinds(_HINTS[column]) if kind is not type(None)}
    if bool in kinds:
        if text.lower() not in _TRUTH:
            raise InputError(f"{where}: {column}: expected true or false, got {text!r}.")
        return _TRUTH[text.lower()]
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    if kinds <= {int, float}:
        number = "a whole number" if kinds == {int} else "a number"
        raise InputError(f"{where}: {column}: expected {number}, got {text!r}.")
    return text


def config_of(
    config: RegisterConfig, files: dict[str, str], settings: dict[str, Any]
) -> RegisterConfig:
    """The settings of a pair: those of all pairs, with its own files and settings.

    Settings of all pairs that its own ones make unread, such as λ where a pair is rigid, are left
    out.

    Raises:
        InputError: settings of the pair that contradict each other.
    """
    paths = {name: Path(files[name]) for name in OPTIONAL_FILES if name in files}
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    values |= paths
    if settings:
        values |= settings
        deciding = {n: values[n] for n in ("transform", "extract")}
        if values["transform"] == "deformable":
            deciding["optimize_only"] = values["optimize_only"]
        for name in RegisterConfig(**deciding).unread:
            if name not in settings:
                values[name] = RegisterConfig.__dataclass_fields__[name].default
    return RegisterConfig(**values)


def is_file_of_start(init: str) -> bool:
    """Whether the value of `init` names a file."""
    return init not in (*LINEAR_STARTS, AUTO)


def _kinds(hint: Any) -> list[Any]:
    """The types that a hint allows; of a Literal those of its values."""
    parts = get_args(hint)
    if not parts:
        return [hint if isinstance(hint, type) else type(hint)]
    return [kind for part in parts for kind in _kinds(part)]
