"""What fails, and whose fault it is: the input, the machine, or jaxreg itself.

`kind_of` decides between the three, `EXIT_CODES` has what the console command ends with.
"""

import difflib
import errno
import functools
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Kind = Literal["input", "environment", "internal"]
"""input: files or flags that cannot be used, which fail again until somebody changes them.
environment: memory, disk, network, or another run in the way; trying again may succeed. internal:
anything else, a fault of jaxreg."""
EXIT_CODES: dict[Kind, int] = {"input": 2, "internal": 70, "environment": 75}
"""As in BSD's sysexits.h, where 70 is a fault of the software and 75 says to try again."""

_OF_THE_MACHINE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOMEM,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
)
_WORDS = re.compile(
    "|".join(
        [
            *(re.escape(os.strerror(number)) for number in _OF_THE_MACHINE),
            "RESOURCE_EXHAUSTED",  # XLA's memory
            "bad_alloc|[Ff]ailed to allocate|[Uu]nable to allocate|[Oo]ut of memory",
        ]
    )
)
"""How libraries say it that raise an error of another type."""


class InputError(Exception):
    """What enters jaxreg is not what it must be; scripts print it in a line and exit 2.

    No ValueError: the parser of the flags would catch it and print it in its own form. A message
    speaks of settings as flags (`--fixed-mask`); `speaks_of_arguments` translates it.
    """


class EnvironmentFailure(InputError):
    """What the machine or other processes do not allow at the moment; scripts exit 75.

    A subclass, because it too is told to the user in one line.
    """


def exit_code_of(kinds: Collection[Kind]) -> int:
    """The exit code of a command over many pairs or images, given the kinds of those that failed.

    0 where none failed. Where the environment failed one of them, its code, since the same command
    does that one again, whatever else failed. Otherwise 1.
    """
    if "environment" in kinds:
        return EXIT_CODES["environment"]
    return 1 if kinds else 0


def kind_of(error: BaseException) -> Kind:
    """Whose fault an error is, by itself and by the errors that it was raised from.

    A package that is not installed is the environment's, unless a flag asked for it.
    """
    chain = list(_causes(error))
    if any(isinstance(e, EnvironmentFailure | MemoryError | ConnectionError) for e in chain):
        return "environment"
    if any(isinstance(e, OSError) and e.errno in _OF_THE_MACHINE for e in chain):
        return "environment"
    if any(_WORDS.search(str(e)) for e in chain):
        return "environment"
    if isinstance(error, InputError):
        return "input"
    return "environment" if isinstance(error, ImportError) else "internal"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the one it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def require_choice(
    name: str, value: str, choices: tuple[str, ...], *, several: bool = False
) -> None:
    """Raise InputError unless `value` is one of `choices`; `name` is the flag without dashes.

    Where the flag takes `several`, the message says what separates them if they stand in `value`
    with something else between them.
    """
    if value in choices:
        return
    apart = re.split(r"[\s;:+|/]+", value.strip())
    separated = several and len(apart) > 1 and all(part in choices for part in apart)
    advice = f"; a comma separates several: {','.join(apart)}." if separated else "."
    raise InputError(f"--{name}: expected one of {', '.join(choices)}; got {value!r}{advice}")


def decimal_point(text: str) -> str:
    """What to add to `expected a number, got '0,3'`: the number with a point, or the full stop."""
    number = text.strip().replace(",", ".")
    if "," in text and re.fullmatch(r"[+-]?\d*\.\d+", number):
        return f"; a decimal point is needed: {number}."
    return "."


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """A question such as `did you mean --out or --outputs?`; empty where nothing is alike.

    It names the nearest of the `known`, those that are as near, and those that `name` continues or
    that continue `name` or end with it as a word. `prefix` is written before each.
    """
    names = [*dict.fromkeys(known)]
    near = difflib.get_close_matches(name, names, n=len(names) or 1)
    nearness = [difflib.SequenceMatcher(None, other, name).ratio() for other in near]
    alike = {other for other, ratio in zip(near, nearness, strict=True) if ratio == nearness[0]}
    ends = f"-{name}", f"_{name}"
    alike |= {n for n in names if n.startswith(name) or n.endswith(ends)}
    alike |= {n for n in names if name.startswith(n) and name[len(n) :][:1] not in ("-", "_")}
    question = " or ".join(prefix + other for other in names if other in alike)
    return f"did you mean {question}?" if alike else ""


def require_share(name: str, value: float) -> None:
    """Raise InputError unless `value` is in [0, 1]; `name` is the flag without dashes."""
    if not 0 <= value <= 1:
        raise InputError(f"--{name}: expected a share in [0, 1], got {value}.")


def reason_of(error: BaseException) -> str:
    """An error in one line; one that is no InputError with its type."""
    text = " ".join(line.strip() for line in str(error).splitlines())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def speaks_of_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """A function for Python whose errors name its arguments where they named flags."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise type(error)(in_arguments(str(error), function)) from error

    return called


def in_arguments(text: str, function: Callable[..., object]) -> str:
    """A text with the flags of a function's arguments written as arguments: `fixed_mask`.

    The `folder` of a function is the command's `--out`.
    """
    for name in inspect.signature(function).parameters:
        flag = "--out" if name == "folder" else "--" + name.replace("_", "-")
        text = re.sub(rf"(?<![\w/.-]){flag}(?![\w-])", name, text)
    return text


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
