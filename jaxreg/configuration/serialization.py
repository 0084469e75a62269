"""Configurations as JSON values, and what of a configuration makes a run the same run.

What is stored holds only what is in force: settings that nothing reads are left out, and take their
defaults when they are read back. `earlier_versions` brings what those stored to today's names.
"""

import json
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import cattrs
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

from jaxreg.configuration.unread import unread_of
from jaxreg.errors import InputError

T = TypeVar("T")


def as_json(config: Any) -> dict[str, Any]:
    """What is in force of a configuration, as nested dictionaries of JSON values."""
    values = _CONVERTER.unstructure(config)
    for name in values:
        if isinstance(values[name], dict):
            values[name] = as_json(getattr(config, name))
    for name in unread_of(config):
        part, _, nested = name.rpartition(".")
        (values[part] if part else values).pop(nested, None)
    return values


def from_json(cls: type[T], values: Any) -> T:
    """The configuration that `as_json` gave.

    Raises:
        InputError: fields that this version does not know, or values that are not what they must
            be; the message names field, wanted and got.
    """
    if not isinstance(values, dict):
        raise InputError(f"stored configuration: expected an object, got {values!r}.")
    try:
        return _CONVERTER.structure(values, cls)
    except BaseValidationError as error:
        refused = _input_error(error)
        if refused is not None:
            raise refused from error
        reasons = cattrs.transform_error(error, path=_ROOT, format_exception=_reason)
        text = "; ".join(reasons).replace(f" @ {_ROOT}.", " for ").replace(f" @ {_ROOT}", "")
        raise InputError(f"stored configuration: {text}.") from error


def identity(config: Any) -> dict[str, Any]:
    """What must agree for a run to be continued: all but the session, the steps and the paths.

    The data and the encoders enter by their contents, which the run adds.
    """
    flat: dict[str, Any] = {}
    for name, value in as_json(config).items():
        if name == "session":
            continue
        flat |= value if isinstance(value, dict) else {name: value}
    return {k: v for k, v in flat.items() if k not in _NO_IDENTITY}


_ROOT = "configuration"
_NO_IDENTITY = (
    "steps",
    "data",
    "encoders",
    "init_from",
    "teacher",
    "validation_pairs",
    "validation_subjects",
    "convolution",
)
"""Settings with other values of which a run may be continued; `convolution` computes the same."""


def _input_error(error: BaseException) -> InputError | None:
    """What a configuration itself said of its values, somewhere in cattrs's group of errors."""
    if isinstance(error, InputError):
        return error
    nested = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next(filter(None, map(_input_error, nested)), None)


def _reason(error: BaseException, _: type | None) -> str:
    """A line for one value; cattrs adds where it stands."""
    if isinstance(error, ForbiddenExtraKeysError):
        return f"fields unknown here: {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, AttributeError | TypeError):  # no dictionary, which cattrs takes it for
        return "expected an object"
    return str(error)


def _make_converter() -> cattrs.Converter:
    """Strict where JSON is: a number is no text, a truth value no number."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(Path, lambda value, _: Path(_exactly(value, str)))
    converter.register_structure_hook_func(_is_choice, _one_of)
    return converter


def _exactly(value: Any, kind: Any) -> Any:
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise ValueError(f"expected {kind.__name__}, got {json.dumps(value, default=str)}")


def _is_choice(kind: Any) -> bool:
    """Whether a type is a Literal, or a union with one, such as λ's `float | "auto" | None`."""
    if get_origin(kind) is Literal:
        return True
    union = get_origin(kind) in (Union, types.UnionType)
    return union and any(get_origin(part) is Literal for part in get_args(kind))


def _one_of(value: Any, kind: Any) -> Any:
    parts = (kind,) if get_origin(kind) is Literal else get_args(kind)
    choices = [c for part in parts if get_origin(part) is Literal for c in get_args(part)]
    plain = [part for part in parts if get_origin(part) is not Literal]
    if value in choices or (value is None and type(None) in plain):
        return value
    for part in plain:
        if part is not type(None) and type(value) in (part, int if part is float else part):
            return value
    wanted = [repr(c) for c in choices] + [p.__name__ for p in plain if p is not type(None)]
    raise ValueError(f"expected one of {', '.join(wanted)}, got {json.dumps(value, default=str)}")


_CONVERTER = _make_converter()
