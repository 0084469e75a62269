"""Configurations as JSON values, and what of a configuration makes a run the same run."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxreg.errors import InputError


def as_json(config: Any) -> dict[str, Any]:
    """A configuration as nested dictionaries of JSON values."""
    values = dataclasses.asdict(config)
    return {k: _plain(v) for k, v in values.items()}


def from_json(cls: type, values: dict[str, Any]) -> Any:
    """The configuration that `as_json` gave.

    Raises:
        InputError: fields this version does not know, or lacks.
    """
    kwargs: dict[str, Any] = {}
    types = {f.name: f for f in dataclasses.fields(cls)}
    unknown = set(values) - set(types)
    if unknown:
        raise InputError(f"stored configuration has fields unknown here: {sorted(unknown)}.")
    for name, value in values.items():
        nested: Any = types[name].default_factory
        if isinstance(value, dict) and dataclasses.is_dataclass(nested):
            kwargs[name] = from_json(nested, value)  # pyright: ignore[reportArgumentType]
        elif isinstance(value, str) and "Path" in str(types[name].type):
            kwargs[name] = Path(value)
        else:
            kwargs[name] = value
    return cls(**kwargs)


def identity(config: Any) -> dict[str, Any]:
    """What must agree for a run to be continued: all but the session, the steps and the paths.

    The data and the encoders enter by their contents, which the run adds.
    """
    flat: dict[str, Any] = {}
    for name, value in as_json(config).items():
        if name == "session":
            continue
        flat |= value if isinstance(value, dict) else {name: value}
    return {k: v for k, v in flat.items() if k not in ("steps", "data", "encoders", "init_from")}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value
