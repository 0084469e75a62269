"""What a normalisation of one subject's images to a template is."""

from dataclasses import dataclass
from pathlib import Path

from jaxreg.errors import InputError

MNI152 = "mni152"


@dataclass(frozen=True, kw_only=True)
class TemplateSettings:
    """The space that the images are brought to."""

    template: str = MNI152
    """mni152, or the image of another template."""
    template_mask: Path | None = None
    """Brain mask of another template, on its grid."""
    template_labels: Path | None = None
    """Label map of another template; names in a .tsv beside it."""


@dataclass(frozen=True, kw_only=True)
class SubjectSettings:
    """Files that belong to the first image."""

    mask: Path | None = None
    """Mask of the brain, on the grid of the first image."""
    ignore: Path | None = None
    """Mask of what must not count in the first image, such as a lesion."""


@dataclass(frozen=True, kw_only=True)
class NormalizeConfig(SubjectSettings, TemplateSettings):
    """Settings of a normalisation."""

    segmentation: Path | None = None
    """Networks that find brains: a folder; by default the bundled ones."""

    def __post_init__(self):
        """Refuse files of another template beside mni152, which has its own."""
        for name in ("template_mask", "template_labels"):
            if self.template == MNI152 and getattr(self, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag}: not read with --template {MNI152}, which has its own.")
