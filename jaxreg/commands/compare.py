"""`jaxreg compare`: jaxreg beside ANTs, greedy, elastix and ConvexAdam on one pair."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, Printing
from jaxreg.commands.register import settings_of
from jaxreg.configuration.registration import AdvancedSettings, InputSettings, TransformSettings


@dataclass(frozen=True, kw_only=True)
class Registration(TransformSettings):
    """How jaxreg registers, and which tools stand beside it."""

    tools: Annotated[str, tyro.conf.arg(name="with", metavar="A,B,…")] = (
        "ants,greedy,elastix,convexadam"
    )
    """Tools to run beside jaxreg; fireants and syntx, too, where installed (docs/register.md)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Register a pair with jaxreg and other tools; print Dice, similarity, folds, seconds, memory.

    Every tool starts from the same affine, on the same grid, in a process of its own (extra
    `compare`). Dice needs --fixed-labels and --moving-labels. jaxreg's seconds are those of the
    deformable part, its programs compiled.
    """

    fixed: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIXED")]
    """Fixed image."""
    moving: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MOVING")]
    """Moving image."""
    input: InputSettings = field(default_factory=InputSettings)
    registration: Registration = field(default_factory=Registration)
    output: Printing = field(default_factory=Printing)
    advanced: AdvancedSettings = field(default_factory=AdvancedSettings)

    def __post_init__(self):
        """Refuse settings that cannot be, whatever else is missing."""
        settings_of(self.input, self.registration, self.advanced)


def main(argv: Sequence[str]) -> None:
    """Compare, and print the table."""
    config = flags.parse(Config, argv, prog="jaxreg compare")
    settings = settings_of(config.input, config.registration, config.advanced)
    from jaxreg.registration.compare_tools.compare import compare_files, table

    console = Console(config.output)
    tools = tuple(part for part in config.registration.tools.split(",") if part)
    with console.progress.phase("compare"):
        rows = compare_files(config.fixed, config.moving, tools, settings, say=console.say)
    console.say(table(rows))
    console.result({"tools": [row._asdict() for row in rows]})
