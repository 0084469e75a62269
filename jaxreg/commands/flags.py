"""Flags from a dataclass: help in groups with one line a flag, and errors in one line.

tyro reads the flags. What is added here: a default that is None is not shown, a choice shows its
values, and what tyro refuses becomes an `InputError`. A nested dataclass is a group of the help.
"""

import contextlib
import dataclasses
import io
import itertools
import re
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from jaxreg.errors import InputError, decimal_point, did_you_mean, require_choice

T = TypeVar("T")

_MARKERS = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
_Arg = type(tyro.conf.arg())
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]
_FRAME = re.compile(r"\x1b\[[0-9;]*m|[─-╿]|-{5,}")
"""What tyro draws around an error: colours, and the lines of a box in Unicode or ASCII."""
_AFTER = ("Argument helptext", "Got errors", "For full helptext")
"""How the lines begin that follow the error itself."""


def parse(config: type[T], argv: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """The `config` that flags ask for; fields they leave out are those of `default`.

    `--help` prints the flags and ends the program with code 0.

    Raises:
        InputError: a flag that is unknown, lacks its value, or cannot be read.
    """
    shown = _shown(config)
    try:
        found = _read(shown, argv, prog, default)
    except _Missing as error:
        # A wrong flag matters more than a missing one, so see what is wrong apart from that.
        _require_choices(_read(_shown(config, required=False), argv, prog, default), config)
        raise InputError(str(error)) from None
    _require_choices(found, config)
    return _converted(found, config)


class _Missing(Exception):
    """A required flag is not there."""


def _read(shown: type[Any], argv: Sequence[str], prog: str, default: Any) -> Any:
    """What tyro reads."""
    given = {} if default is None else {"default": _converted(default, shown)}
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            return tyro.cli(shown, args=list(argv), prog=prog, config=_MARKERS, **given)
    except SystemExit as error:
        if not error.code:
            raise
        said = _one_line(refusal.getvalue())
        missing = re.match(r"Missing from|Missing value for argument '(?!-)", said)
        text = f"{_in_words(said, shown, argv)} See `{prog} --help`."
        raise (_Missing if missing else InputError)(text) from None


def _one_line(box: str) -> str:
    """The error that tyro draws in a box, as a sentence."""
    lines = [" ".join(_FRAME.sub(" ", line).split()) for line in box.splitlines()]
    said = lines[1:]  # the first one is the title of the box
    if said and not said[0]:  # its frame, where it is drawn without Unicode
        said = said[1:]
    text = " ".join(itertools.takewhile(lambda line: line and not line.startswith(_AFTER), said))
    return text if text.endswith((".", "?")) else f"{text}."


def _in_words(said: str, config: type[Any], argv: Sequence[str]) -> str:
    """What tyro said in one sentence that names the flags alone; other refusals as they are."""
    labels = dict(_labels(config))
    if match := re.match(r"Unrecognized options: (.*)\.$", said):
        parts = match[1].split(", ")
        flags = [part.split("=")[0] for part in parts if part.startswith("-")]
        if not flags:
            return f"unexpected argument {parts[0]}."
        known = [label.removeprefix("--") for label in labels if label.startswith("--")]
        question = did_you_mean(flags[0].lstrip("-"), known, prefix="--")
        return f"unknown flag {flags[0]}{f'; {question}' if question else '.'}"
    if match := re.match(r"Error parsing (--[\w-]+):", said):
        return _no_number(match[1], argv, config) or said
    if match := re.match(r"Missing value for argument '(-[^']*)'", said):
        return f"{match[1]} needs a value."
    if said.startswith("Missing from"):
        places = {label: re.search(rf"(?<!\S){re.escape(label)}(?!\S)", said) for label in labels}
        lacking = [label for label, required in labels.items() if required and places[label]]
        if lacking:
            *first, last = lacking
            both = f"{', '.join(first)} and {last}" if first else last
            return f"{both} {'are' if first else 'is'} required, and not given."
    return said


def _no_number(flag: str, argv: Sequence[str], config: type[Any]) -> str | None:
    """What is wrong with the value of a flag that takes a number; None of any other flag."""
    hint = next(hint for label, _, hint in _flags(config) if label == flag)
    bare = _bare(hint)
    parts = get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)
    kinds = [part for part in parts if part in (int, float)]
    if not kinds:
        return None
    wanted = ["a number" if float in kinds else "a whole number"]
    wanted += [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    values = [word.partition("=")[2] for word in argv if word.startswith(f"{flag}=")]
    values += [value for name, value in itertools.pairwise(argv) if name == flag]
    got = next((value for value in values if not _is_number(value, kinds)), "")
    end = decimal_point(got) if float in kinds else "."
    return f"{flag}: expected {' or '.join(wanted)}, got {got!r}{end}"


def _is_number(text: str, kinds: Sequence[type]) -> bool:
    """Whether a text can be read as one of these kinds of numbers."""
    for kind in kinds:
        with contextlib.suppress(ValueError):
            kind(text)
            return True
    return False


def _labels(config: type[Any]) -> Iterator[tuple[str, bool]]:
    """The name of each flag (`--out`) or positional argument (`FIXED`), and whether it is required.

    Two-state flags have their other name, such as `--no-on`, too.
    """
    for label, field, _ in _flags(config):
        yield label, _is_required(field)
        if field.default is True:
            yield f"--no-{label.removeprefix('--')}", False


def _flags(config: type[Any]) -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """(the name of a flag or positional argument, its field, its annotation) of each."""
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if dataclasses.is_dataclass(_bare(hint)):
            yield from _flags(_bare(hint))
            continue
        extras = getattr(hint, "__metadata__", ())
        own: Any = next((extra for extra in extras if isinstance(extra, _Arg)), tyro.conf.arg())
        name = (own.name or field.name).replace("_", "-")
        positional = any(extra is _POSITIONAL for extra in extras)
        yield (own.metavar or name.upper()) if positional else f"--{name}", field, hint


def _shown(config: type[Any], *, required: bool = True) -> type[Any]:
    """A subclass of a dataclass whose annotations say how each field is shown.

    Where nothing is `required`, a field without a default gets None.
    """
    hints = get_type_hints(config, include_extras=True)
    fields = []
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if dataclasses.is_dataclass(_bare(hint)):
            nested: Any = _shown(_bare(hint), required=required)
            fields.append((field.name, nested, dataclasses.field(default_factory=nested)))
        elif required or not _is_required(field):
            fields.append((field.name, _described(hint, field.default), _same(field)))
        else:
            extras = getattr(hint, "__metadata__", ())
            hint = Annotated[(_bare(hint) | None, *extras)] if extras else hint | None
            fields.append((field.name, _described(hint, None), dataclasses.field(default=None)))
    shown = dataclasses.make_dataclass(
        config.__name__, fields, bases=(config,), frozen=True, kw_only=True
    )
    shown.__doc__ = config.__doc__
    return shown


def _described(hint: Any, default: Any) -> Any:
    """A field's annotation with what the help says of its default and its choices."""
    own = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, _Arg)]
    arg: Any = own[0] if own else tyro.conf.arg()
    bare, choices = _bare(hint), _choices(_bare(hint))
    unnamed = (dataclasses.MISSING, None, False)  # by `is`, because 0 equals False
    known = not any(default is value for value in unnamed) and default not in ("", ())
    parts = [", ".join(choices)] if choices else []
    parts += [f"default: {default}"] if known and default is not True else []
    changes: dict[str, Any] = {"help_behavior_hint": f"({'; '.join(parts)})" if parts else ""}
    if choices:
        changes["metavar"] = arg.metavar or "NAME"
        bare = str if type(None) not in get_args(bare) else str | None
    markers = [extra for extra in getattr(hint, "__metadata__", ()) if not isinstance(extra, _Arg)]
    return Annotated[(bare, *markers, dataclasses.replace(arg, **changes))]


def _choices(bare: Any) -> tuple[str, ...]:
    """The values of `Literal[…]` or `Literal[…] | None`; none for any other type.

    The dataclass checks them itself, and its words for a wrong one name the flag.
    """
    parts = get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)
    parts = [part for part in parts if part is not type(None)]
    if len(parts) == 1 and get_origin(parts[0]) is Literal:
        return get_args(parts[0])
    return ()


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _same(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field(default=field.default)


def _converted(config: Any, wanted: type[Any]) -> Any:
    """A dataclass with its nested ones as another class of the same fields."""
    hints = get_type_hints(wanted, include_extras=True)
    values = {}
    for field in dataclasses.fields(wanted):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        values[field.name] = _converted(value, _bare(hints[field.name])) if nested else value
    return wanted(**values)


def _require_choices(found: Any, config: type[Any]) -> None:
    """Raise InputError where a value is not one of the choices that its flag has."""
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        value, hint = getattr(found, field.name), _bare(hints[field.name])
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            _require_choices(value, hint)
        elif value is not None and _choices(hint):
            require_choice(field.name.replace("_", "-"), value, _choices(hint))
