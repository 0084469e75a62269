"""`jaxreg sweep`: `register --lam auto`, with the whole curve and every moved image written."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags, register
from jaxreg.configuration.registration import (
    AdvancedSettings,
    InputSettings,
    RegisterConfig,
    TransformSettings,
)
from jaxreg.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Register MOVING to FIXED at every λ from 0 to 1 by 0.1, and write the whole curve.

    The result is that of `jaxreg register --lam auto`; curve.tsv and the moved image of every λ are
    written too.
    """

    fixed: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIXED")]
    """Fixed image: the results lie on its grid."""
    moving: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MOVING")]
    """Moving image."""
    input: InputSettings = field(default_factory=InputSettings)
    registration: TransformSettings = field(default_factory=TransformSettings)
    output: register.Output
    advanced: AdvancedSettings = field(default_factory=AdvancedSettings)

    def __post_init__(self):
        """Refuse settings that cannot be, whatever else is missing."""
        self.settings()

    def settings(self) -> RegisterConfig:
        """The groups of flags as one configuration."""
        if self.registration.lam not in (None, "auto"):
            raise InputError(f"--lam: a sweep takes every λ, got {self.registration.lam}.")
        transform = dataclasses.replace(self.registration, lam="auto")
        return register.settings_of(self.input, transform, self.output, self.advanced)


def main(argv: Sequence[str]) -> None:
    """Sweep λ on a pair."""
    config = flags.parse(Config, argv, prog="jaxreg sweep")
    register.run(config.fixed, config.moving, config.settings(), config.output, every_lam=True)
