"""What a registration of one pair is: files, start, smoothness, and how the velocity is found."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from jaxreg.configuration.domains import domain_pair
from jaxreg.configuration.objective import DIRECT_LOSSES
from jaxreg.configuration.unread import refuse_unread
from jaxreg.errors import InputError, decimal_point, require_choice

TransformKind = Literal["deformable", "affine", "rigid"]
Extraction = Literal["auto", "never", "always"]
LINEAR_STARTS = ("none", "com", "rigid", "affine")
"""How an affine is found: none takes the headers as they are, com the centres of mass."""
AUTO = "auto"
GIVEN_MATRIX = "matrix [4, 4]"
"""The start of a registration from Python that gives the matrix itself instead of its file."""
DIRECT_RATE, REFINE_RATE = 0.05, 0.025
"""Adam's rate, in voxels of the velocity's grid, from zero and from a network's answer. Larger
and more steps lose what the network knows of the anatomy to the similarity
(docs/experiments/refinement.md)."""
UNGUIDED_STEPS, UNGUIDED_RATE = 20, 0.01
"""Refinement of a network's answer where no segmentation takes part: shorter steps, because the
similarity alone leads away from the anatomy sooner (docs/results.md)."""
DIRECT_LABEL_WEIGHT, REFINE_LABEL_WEIGHT = 4.0, 8.0
"""Weight of 1 − Dice of both images' own segmentations beside the similarity, in optimisation from
zero and in refinement; chosen on validation pairs (docs/experiments/refinement.md)."""
REFINE_SMOOTHNESS = 0.3
"""How much of the roughness counts in a refinement with segmentations, beside what λ asks for."""
if TYPE_CHECKING:
    DirectLoss = str
else:
    DirectLoss = Literal[DIRECT_LOSSES]  # so that --help lists the table's names
OPTIONAL_FILES = (
    "fixed_mask",
    "moving_mask",
    "fixed_ignore",
    "moving_ignore",
    "fixed_labels",
    "moving_labels",
)
"""Files of a pair beside its images: settings, and columns of a table of pairs."""

OUTPUTS = (
    "moved",
    "warp",
    "inverse_warp",
    "affine",
    "jacobian",
    "moved_labels",
    "masks",
    "report",
)
"""What a run writes beside its record unless --outputs chooses, by the names that it takes."""
ALL_OUTPUTS = "all"
"""The name that stands for all of them in --outputs."""
ON_REQUEST = ("view3d",)
"""What a run writes only where --outputs names it."""


class DirectSettings(NamedTuple):
    """What --optimize-only optimises, and where: its defaults.

    Attributes:
        loss: the loss that is minimised.
        steps: steps of Adam.
        spacing: voxel size of the grid, mm.
        lam: smoothness λ in [0, 1].
    """

    loss: DirectLoss = "lncc"
    steps: int = 80
    spacing: float = 2.0
    lam: float = 0.8


class Defaults(NamedTuple):
    """How a network registers where no flag says otherwise: λ, steps of refinement, passes."""

    lam: float = 0.7
    refine: int = 0
    passes: int = 1


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
    """Contrasts FIXED,MOVING: T1w,T2w; by default from names, else intensities."""
    extract: Extraction = "auto"
    """Find the brain; auto: in whole heads."""


@dataclass(frozen=True, kw_only=True)
class TransformSettings:
    """What is computed, by which network, and how smooth it is."""

    transform: TransformKind = "deformable"
    """Kind of transform."""
    model: Path | None = None
    """Network: a training workdir or a release; by default the bundled one."""
    lam: float | Literal["auto"] | None = None
    """Smoothness λ, 0 to 1 or auto; default the model's (--optimize-only: 0.8)."""
    init: str | None = None
    """Start: none, com, rigid, affine, an ITK affine file; by default auto."""


@dataclass(frozen=True, kw_only=True)
class SubjectPairSettings:
    """Images of one subject, and more images that go by the same map."""

    same_subject: bool = False
    """Both images show one subject: a rigid map within the brains."""
    halfway: bool = False
    """Write both images halfway between them (--same-subject)."""
    also: tuple[Path, ...] = ()
    """More images in the moving space, moved by the same map."""


@dataclass(frozen=True, kw_only=True)
class AdvancedSettings:
    """How the velocity is found."""

    segmentation: Path | None = None
    """Networks that find brains: a folder; by default the bundled ones."""
    label_weight: float | None = None
    """Weight of both segmentations' overlap; by default 8 (--optimize-only: 4)."""
    refine: int | None = None
    """Steps after the network; by default 16 (bundled), 20 if unsegmented."""
    passes: int | None = None
    """How often the network sees the pair; by default as the model says."""
    optimize_only: bool = False
    """Find the velocity by direct optimisation, without a network."""
    loss: DirectLoss | None = None
    """Loss of --optimize-only; by default lncc."""
    steps: int | None = None
    """Steps of --optimize-only; by default 80."""
    spacing: float | None = None
    """Voxel size of the grid of --optimize-only, in millimetres; by default 2."""


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Which files are written."""

    outputs: str | None = None
    """Files, such as warp,report or all,view3d; by default all but view3d."""
    warp_spacing: float | None = None
    """Voxel size of written warps, in mm; by default that of the images."""


@dataclass(frozen=True, kw_only=True)
class RegisterConfig(
    AdvancedSettings, OutputSettings, SubjectPairSettings, TransformSettings, InputSettings
):
    """Settings of a registration; a velocity comes from a network, or from --optimize-only.

    With `same_subject` the transform is rigid. Defaults that are None are those of the model. Of a
    training workdir without defaults of its own, and of --optimize-only, they are in
    docs/register.md.
    """

    def __post_init__(self):
        """Refuse what contradicts itself before a file is read."""
        require_choice("transform", self.transform, get_args(TransformKind))
        if self.same_subject and self.transform == "affine":
            raise InputError("--same-subject: one subject needs a rigid map, got affine.")
        if self.same_subject:
            object.__setattr__(self, "transform", "rigid")
        require_choice("extract", self.extract, get_args(Extraction))
        if self.loss is not None:
            require_choice("loss", self.loss, DIRECT_LOSSES)
        lam = self.lam
        if isinstance(lam, str) and lam != AUTO:
            wanted = "a number in [0, 1] or auto"
            raise InputError(f"--lam: expected {wanted}, got {lam!r}{decimal_point(lam)}")
        if not isinstance(lam, str) and lam is not None and not 0 <= lam <= 1:
            raise InputError(f"--lam: expected a number in [0, 1] or auto, got {lam}.")
        for name, lowest in (("steps", 1), ("refine", 0), ("passes", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise InputError(f"--{name}: expected at least {lowest}, got {value}.")
        if self.label_weight is not None and not self.label_weight >= 0:
            raise InputError(f"--label-weight: expected at least 0, got {self.label_weight}.")
        if self.spacing is not None and not 0.5 <= self.spacing <= 20:
            raise InputError(f"--spacing: expected 0.5 to 20 mm, got {self.spacing}.")
        if self.warp_spacing is not None and not 0.1 <= self.warp_spacing <= 10:
            raise InputError(f"--warp-spacing: expected 0.1 to 10 mm, got {self.warp_spacing}.")
        if self.domains is not None:
            domain_pair(self.domains)
        if self.transform == "deformable" and self.model is not None and self.optimize_only:
            raise InputError("expected either --model DIR or --optimize-only, got both.")
        for name in self.written:
            require_choice("outputs", name, (ALL_OUTPUTS, *OUTPUTS, *ON_REQUEST), several=True)
        refuse_unread(self)

    @property
    def written(self) -> tuple[str, ...]:
        """The outputs that are written, of `OUTPUTS` and `ON_REQUEST`."""
        named = (ALL_OUTPUTS if self.outputs is None else self.outputs).split(",")
        return (*(OUTPUTS if ALL_OUTPUTS in named else ()), *named)

    @property
    def unread(self) -> dict[str, str]:
        """The settings that the chosen kind of registration does not read, and why."""
        direct, network = ("loss", "steps", "spacing"), ("model", "domains", "refine", "passes")
        unread = {}
        if not self.same_subject:
            unread["halfway"] = "read only with --same-subject"
        if self.extract == "never":
            never = "not read with --extract never"
            unread |= dict.fromkeys(("segmentation", "label_weight"), never)
        if self.transform != "deformable":
            names = ("init", "lam", "label_weight", "optimize_only", *network, *direct)
            return unread | dict.fromkeys(names, f"not read with --transform {self.transform}")
        if self.optimize_only:
            return unread | dict.fromkeys(network, "not read with --optimize-only")
        return unread | dict.fromkeys(direct, "read only with --optimize-only")

    @property
    def direct(self) -> DirectSettings:
        """The settings of --optimize-only, defaults where none are given."""
        given = {
            name: getattr(self, name)
            for name in ("loss", "steps", "spacing")
            if getattr(self, name) is not None
        }
        if isinstance(self.lam, float | int):
            given["lam"] = float(self.lam)
        return DirectSettings(**given)

    @property
    def init_mode(self) -> str | None:
        """Mode of `register_affine` or auto; None where the start is a file."""
        if self.transform != "deformable":
            return self.transform
        mode = self.init or AUTO
        return mode if mode in (*LINEAR_STARTS, AUTO) else None
