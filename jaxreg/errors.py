"""The one exception for what a user can put right: files, cohorts, configurations, flags."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class InputError(Exception):
    """What enters jaxreg is not what it must be; scripts print it in a line and exit 2.

    No ValueError: the parser of the flags would catch it and print it in its own form. A message
    speaks of settings as flags (`--fixed-mask`); `speaks_of_arguments` translates it.
    """


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`; `name` is the flag without dashes."""
    if value not in choices:
        raise InputError(f"--{name}: expected one of {', '.join(choices)}; got {value!r}.")


def require_share(name: str, value: float) -> None:
    """Raise InputError unless `value` is in [0, 1]; `name` is the flag without dashes."""
    if not 0 <= value <= 1:
        raise InputError(f"--{name}: expected a share in [0, 1], got {value}.")


def reason_of(error: BaseException) -> str:
    """An error in one line; one that is no InputError with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def speaks_of_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """A function for Python whose errors name its arguments where they named flags."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise InputError(in_arguments(str(error), function)) from error

    return called


def in_arguments(text: str, function: Callable[..., object]) -> str:
    """A text with the flags of a function's arguments written as arguments: `fixed_mask`."""
    for name in inspect.signature(function).parameters:
        flag = "--" + name.replace("_", "-")
        text = re.sub(rf"(?<![\w/.-]){flag}(?![\w-])", name, text)
    return text


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
