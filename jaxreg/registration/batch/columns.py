"""The columns of a table of pairs: files, the settings of a pair, and what its author adds.

A setting of a pair takes the place of the flag of the same name.
"""

import dataclasses
import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jaxreg.configuration.registration import (
    AUTO,
    LINEAR_STARTS,
    OPTIONAL_FILES,
    RegisterConfig,
)
from jaxreg.errors import InputError, decimal_point

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
MARK = "x_"
"""How a column may begin that is nothing to jaxreg, whatever it resembles."""
_NEAR = 0.75
"""Of difflib's ratio: transfrom has 0.89 to transform, subject 0.74 to same_subject."""
_HINTS = get_type_hints(RegisterConfig)
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def own_columns(names: Collection[str | None], where: str) -> list[str]:
    """The columns that are none of `COLUMNS`: the author's own, such as age or site.

    `where` begins the message.

    Raises:
        InputError: a row with more values than columns, or a column that may be a misspelt one of
            `COLUMNS`. A name that begins with `MARK` never is.
    """
    own = []
    for name in names:
        if name is None:
            raise InputError(f"{where}: more values than columns.")
        if name in COLUMNS:
            continue
        meant = None if name.startswith(MARK) else _meant(name)
        if meant is not None:
            raise InputError(
                f"{where}: unknown column {name!r}; did you mean {meant}? A column of your own "
                f"that is called so begins with {MARK}: {MARK}{name}."
            )
        own.append(name)
    return own


def _meant(name: str) -> str | None:
    """The known column that an unknown one may stand for."""
    plain = re.sub(r"[\s-]+", "_", name.strip().casefold())
    near = difflib.get_close_matches(plain, COLUMNS, n=1, cutoff=_NEAR)
    if near:
        return near[0]
    longer = (c for c in COLUMNS if plain.startswith(c))  # lambda, fixed_image
    shorter = (c for c in OPTIONAL_FILES if c.endswith(f"_{plain}"))  # mask
    return next(longer, None) or next(shorter, None)


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
        end = decimal_point(text) if float in kinds else "."
        raise InputError(f"{where}: {column}: expected {number}, got {text!r}{end}")
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
