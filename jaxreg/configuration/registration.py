"""What a registration of one pair is: files, start, smoothness, and how the velocity is found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from jaxreg.errors import InputError, require_choice

TransformKind = Literal["deformable", "affine", "rigid"]
DirectLoss = Literal["lncc", "mi", "lmi", "ngf", "mind", "mse"]
"""Similarities that need neither encoders nor a third image."""
LINEAR_STARTS = ("none", "com", "rigid", "affine")
DIRECT_LAM = 0.8
AUTO = "auto"
OPTIONAL_FILES = (
    "fixed_mask",
    "moving_mask",
    "fixed_ignore",
    "moving_ignore",
    "fixed_labels",
    "moving_labels",
)
"""Files of a pair beside its images: settings, and columns of a table of pairs."""


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Files that belong to the two images, and their contrasts."""

    fixed_mask: Path | None = None
    """Mask of the fixed brain, on the grid of the fixed image."""
    moving_mask: Path | None = None
    """Mask of the moving brain, on the grid of the moving image."""
    fixed_ignore: Path | None = None
    """Mask of what must not count in the fixed image, such as a lesion."""
    moving_ignore: Path | None = None
    """Mask of what must not count in the moving image."""
    fixed_labels: Path | None = None
    """Label map of the fixed image; Dice is computed with the moving one."""
    moving_labels: Path | None = None
    """Label map of the moving image; it is moved as well."""
    domains: str | None = None
    """Contrasts, such as T1w,T2w; by default as the file names say."""


@dataclass(frozen=True, kw_only=True)
class TransformSettings:
    """What is computed, by which network, and how smooth it is."""

    transform: TransformKind = "deformable"
    """Kind of transform."""
    model: Path | None = None
    """Network: a training workdir or a release; by default the bundled one."""
    lam: float | Literal["auto"] | None = None
    """Smoothness λ in [0, 1], or auto: chosen for this pair by a sweep."""
    init: str | None = None
    """Linear start: auto, none, com, rigid, affine or an ITK affine file."""


@dataclass(frozen=True, kw_only=True)
class AdvancedSettings:
    """How the velocity is found."""

    refine: int | None = None
    """Optimisation steps after the network; by default as the model says."""
    passes: int | None = None
    """How often the network sees the pair; by default as the model says."""
    optimize_only: bool = False
    """Find the velocity by direct optimisation, without a network."""
    loss: DirectLoss = "lncc"
    """Loss of --optimize-only."""
    steps: int = 80
    """Steps of --optimize-only."""
    spacing: float = 2.0
    """Voxel size of the grid of --optimize-only, in millimetres."""


@dataclass(frozen=True, kw_only=True)
class RegisterConfig(AdvancedSettings, TransformSettings, InputSettings):
    """Settings of a registration; a velocity comes from a network, or from --optimize-only.

    Defaults that are None are those of the model. Of a training workdir without defaults of its
    own, and of --optimize-only, they are in docs/register.md.
    """

    def __post_init__(self):
        """Refuse what contradicts itself before a file is read."""
        require_choice("transform", self.transform, get_args(TransformKind))
        require_choice("loss", self.loss, get_args(DirectLoss))
        lam = self.lam
        if isinstance(lam, str):
            require_choice("lam", lam, ("auto",))
        elif lam is not None and not 0 <= lam <= 1:
            raise InputError(f"--lam: expected a number in [0, 1] or auto, got {lam}.")
        passes = 0 if self.passes is None else self.passes - 1
        for name, value in (
            ("steps", self.steps - 1),
            ("refine", self.refine or 0),
            ("passes", passes),
        ):
            if value < 0:
                raise InputError(f"--{name}: expected more, got {getattr(self, name)}.")
        if not 0.5 <= self.spacing <= 20:
            raise InputError(f"--spacing: expected 0.5 to 20 mm, got {self.spacing}.")
        if self.domains is not None and len(self.domains.split(",")) != 2:
            raise InputError(f"--domains: expected FIXED,MOVING, got {self.domains!r}.")
        self._check_means()

    def _check_means(self) -> None:
        """Refuse flags that the chosen kind of registration does not read."""
        if self.transform != "deformable":
            unread = ("model", "init", "lam", "domains", "refine", "passes")
            given = [name for name in unread if getattr(self, name) is not None]
            given += ["optimize_only"] if self.optimize_only else []
            if given:
                flag = given[0].replace("_", "-")
                raise InputError(f"--{flag}: not read with --transform {self.transform}.")
        elif self.model is not None and self.optimize_only:
            raise InputError("expected either --model DIR or --optimize-only, got both.")
        if self.optimize_only:
            for name in ("refine", "passes", "domains"):
                if getattr(self, name) is not None:
                    raise InputError(f"--{name}: not read with --optimize-only.")
        elif (self.loss, self.steps, self.spacing) != ("lncc", 80, 2.0):
            raise InputError("--loss, --steps, --spacing: read only with --optimize-only.")

    @property
    def init_mode(self) -> str | None:
        """Mode of `register_affine` or auto; None where the start is a file."""
        if self.transform != "deformable":
            return self.transform
        mode = self.init or AUTO
        return mode if mode in (*LINEAR_STARTS, AUTO) else None
