"""Which images of a BIDS data set are registered to which."""

from dataclasses import dataclass
from pathlib import Path

from jaxreg.configuration.normalization import MNI152, TemplateSettings
from jaxreg.configuration.preparation import parse_entities
from jaxreg.errors import InputError

MNI152_SPACE = "MNI152NLin2009cSym"
"""The name of its space in BIDS and TemplateFlow."""


@dataclass(frozen=True, kw_only=True)
class BidsSelection(TemplateSettings):
    """Which images of which subjects."""

    moving: str | None = None
    """Suffix of the moving images; by default T2w, with --template T1w."""
    fixed: str | None = None
    """Suffix of the fixed images of the same session; by default T1w."""
    template: str | None = None
    """mni152, or the image of a template: what every subject is registered to."""
    space: str | None = None
    """Name of the template's space; by default tpl-NAME of its file's name."""
    participant_label: tuple[str, ...] = ()
    """Subjects, such as 01 02; by default all."""
    session: tuple[str, ...] = ()
    """Sessions, such as baseline; by default all."""
    entities: str | None = None
    """Which of several images is taken: acq=highres,run=1,…"""

    def __post_init__(self):
        """Refuse what contradicts itself before a file is read."""
        if self.template is not None and self.fixed is not None:
            raise InputError("--fixed: not read with --template, which is the fixed image.")
        for name in ("space", "template_mask", "template_labels"):
            if getattr(self, name) is not None and self.template in (None, MNI152):
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag}: read only with --template PATH.")
        for flag, label in (("moving", self.moving), ("fixed", self.fixed), ("space", self.space)):
            if label is not None and not (label.isascii() and label.isalnum()):
                raise InputError(f"--{flag}: expected letters and digits, got {label!r}.")
        if self.template is None and self.moving_suffix == self.fixed_suffix:
            raise InputError(
                f"--moving, --fixed: expected two kinds of images, got {self.moving_suffix} twice."
            )
        if "ses" in self.wishes:
            raise InputError("--entities: expected no ses here; sessions are chosen by --session.")

    @property
    def moving_suffix(self) -> str:
        """The suffix of the moving images."""
        return self.moving or ("T2w" if self.template is None else "T1w")

    @property
    def fixed_suffix(self) -> str | None:
        """The suffix of the fixed images, None where they are a template."""
        return (self.fixed or "T1w") if self.template is None else None

    @property
    def fixed_space(self) -> str:
        """The name of the fixed space in BIDS names: the fixed suffix, or that of the template.

        Raises:
            InputError: the file's name does not say it.
        """
        if self.fixed_suffix is not None:
            return self.fixed_suffix
        assert self.template is not None
        if self.template == MNI152:
            return MNI152_SPACE
        parts = (p.partition("-") for p in Path(self.template).name.split(".")[0].split("_"))
        named = {key: value for key, _, value in parts}
        space = self.space or named.get("tpl") or named.get("space")
        if not space:
            raise InputError(
                f"--template {self.template}: the name has no tpl-NAME; give --space NAME, such as "
                "MNI152NLin2009cAsym."
            )
        return space

    @property
    def wishes(self) -> dict[str, tuple[str, ...]]:
        """What `entities` asks for."""
        return parse_entities(self.entities) if self.entities else {}
