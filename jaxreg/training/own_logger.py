"""The user's own logger: a function that gets the numbers of a training as TensorBoard does.

A log is no reason to stop: where the function fails, that is said once, and training continues
without it.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import TypeAlias

from jaxreg.errors import InputError

Logger: TypeAlias = Callable[[int, dict[str, float]], object]
"""A function of the step and of values by name, such as `train/loss` and `val/dice_0.5`."""


def load_logger(name: str) -> Logger:
    """The function that `MODULE:FUNCTION` names; modules in the working folder are found too.

    Raises:
        InputError: no such module or function, or a module that cannot be imported.
    """
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"--logger: {module} cannot be imported ({reason}).") from error
    if not callable(found):
        raise InputError(f"--logger: {module} has no function {function}.")
    return found


class OwnLogger:
    """Calls a logger, and falls silent where it fails."""

    def __init__(self, logger: Logger | None):
        """None is told nothing."""
        self._logger = logger

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Tell the logger named values of a step."""
        if self._logger is None:
            return
        try:
            self._logger(step, dict(values))
        except Exception as error:
            self._logger = None
            print(
                f"jaxreg: the logger failed at step {step} ({type(error).__name__}: {error}); "
                "training continues without it.",
                file=sys.stderr,
            )
