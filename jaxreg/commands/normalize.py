"""`jaxreg normalize`: the images of one subject brought to MNI152 or another template."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxreg.commands import flags
from jaxreg.commands.console import Console, DetailedFolderOutput
from jaxreg.configuration.normalization import (
    MNI152,
    NormalizeConfig,
    SubjectSettings,
    TemplateSettings,
)
from jaxreg.errors import InputError
from jaxreg.io.files import require_file


@dataclass(frozen=True, kw_only=True)
class Input(SubjectSettings):
    """Files that belong to the first image."""


@dataclass(frozen=True, kw_only=True)
class Template(TemplateSettings):
    """The space that the images are brought to."""

    template: Annotated[str, tyro.conf.arg(metavar="mni152|PATH")] = MNI152
    """Template: mni152, or the image of another one."""


@dataclass(frozen=True, kw_only=True)
class Output(DetailedFolderOutput):
    """Where the results go, and what is printed."""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Which networks segment."""

    segmentation: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Networks that find brains: a folder; by default the bundled ones."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Bring the IMAGEs of one subject to a template and write the results to --out.

    The images are NIfTI or MGZ files of whole heads or brains. The first one is registered to the
    template; further ones, such as the T2w of the same subject, go by the same map.
    """

    image: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE …")] = ()
    """Images of one subject."""
    input: Input = field(default_factory=Input)
    template: Template = field(default_factory=Template)
    output: Output
    advanced: Advanced = field(default_factory=Advanced)

    def __post_init__(self):
        """Refuse settings that cannot be, whatever else is missing."""
        settings_of(self)


def settings_of(config: Config) -> NormalizeConfig:
    """The settings that the groups of flags make together."""
    groups = (config.input, config.template, config.advanced)
    return NormalizeConfig(**{k: v for group in groups for k, v in vars(group).items()})


def main(argv: Sequence[str]) -> None:
    """Normalise, and say where the results are."""
    config = flags.parse(Config, argv, prog="jaxreg normalize")
    settings = settings_of(config)
    if not config.image:
        raise InputError("IMAGE: expected at least one image of the subject, got none.")
    given = (settings.mask, settings.ignore, settings.template_mask, settings.template_labels)
    for path in (*config.image, *given):
        if path is not None:
            require_file(path)  # before JAX is imported, which takes longer
    from jaxreg.registration.clock import START, Clock
    from jaxreg.registration.normalize.normalize import normalize_files

    console, out = Console(config.output), config.output.out
    clock = Clock(console.progress)
    clock.seconds[START] = time.process_time()
    finished = normalize_files(
        config.image,
        out,
        settings,
        overwrite=config.output.overwrite,
        say=console.say,
        detail=console.detail,
        clock=clock,
    )
    console.result(finished.summary(out))
