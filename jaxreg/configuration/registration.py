"""What a registration of one pair is: files, start, smoothness, and how the velocity is found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxreg.configuration.objective import ALIGNED_LOSSES, CONTRASTIVE_LOSSES, LOSSES
from jaxreg.errors import InputError, require_choice
from jaxreg.registration.linear.affine import MODES

TRANSFORMS = ("deformable", "affine", "rigid")
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
DIRECT_LOSSES = tuple(loss for loss in LOSSES if loss not in (*CONTRASTIVE_LOSSES, *ALIGNED_LOSSES))


@dataclass(frozen=True)
class RegisterConfig:
    """Settings of a registration; a velocity comes from a network, or from --optimize-only."""

    model: Path | None = None
    """Network that registers: a training workdir or a released model. Default the one that comes
    with jaxreg (docs/model-card.md)."""
    optimize_only: bool = False
    """Find the velocity by direct optimisation, without a network."""
    loss: str = "lncc"
    """What --optimize-only maximises: lncc, mi, lmi, ngf, mind or mse (one contrast)."""
    steps: int = 80
    """Steps of --optimize-only."""
    spacing: float = 2.0
    """Voxel size of the grid of --optimize-only, mm; a network has its own."""
    lam: float | Literal["auto"] | None = None
    """Smoothness λ in [0, 1], or auto: a sweep on this pair and a rule. Default that of the model
    (of a training workdir 0.7, of --optimize-only 0.8)."""
    init: str | None = None
    """Linear start of the deformable transform: auto (default: the best of none, rigid and affine
    by local correlation), none (as the headers say), com, rigid, affine, or an ITK file such as
    another run's affine.mat."""
    transform: str = "deformable"
    """deformable, affine or rigid; for one person's own T1w and T2w, rigid is enough."""
    refine: int | None = None
    """Steps of optimisation from the network's answer, for this pair (the weights stay). Default
    that of the model (of a training workdir 0)."""
    passes: int | None = None
    """How often the network sees the pair: after the first time with the moving image as moved so
    far, half of the answer added. Default that of the model (of a training workdir 1)."""
    domains: str | None = None
    """FIXED,MOVING contrasts as the model names them; default from the file names (_T1w), else the
    model's order. The other order is registered backwards and inverted."""
    fixed_mask: Path | None = None
    """Mask of the fixed brain, on the fixed image's grid."""
    moving_mask: Path | None = None
    """Mask of the moving brain, on the moving image's grid."""
    fixed_ignore: Path | None = None
    """What of the fixed image is not to count, such as a lesion."""
    moving_ignore: Path | None = None
    """What of the moving image is not to count."""
    fixed_labels: Path | None = None
    """Label map of the fixed image: Dice is computed with the moving one's."""
    moving_labels: Path | None = None
    """Label map of the moving image: it is moved too."""

    def __post_init__(self):
        """Refuse what contradicts itself before a file is read."""
        require_choice("transform", self.transform, TRANSFORMS)
        require_choice("loss", self.loss, DIRECT_LOSSES)
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
        return mode if mode in (*MODES, AUTO) else None
