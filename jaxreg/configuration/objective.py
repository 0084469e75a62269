"""What stage 2 minimises: the similarity, the regulariser, and their numbers.

`LOSS_SPECS` is the one table of the losses. The function of each loss stands in
`jaxreg.losses.similarity.SIMILARITIES` under the same name.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxreg.configuration.unread import flag_of, refuse_unread
from jaxreg.errors import InputError, require_choice, require_share

LNCC_WINDOW, LNCC_EPSILON = 7, 1e-5
"""Defaults of LNCC, also where it measures a registration and where stage 1 uses it."""

_MI = ("mi_samples", "mi_margin", "mi_bins")
_NCE = ("nce_locations", "nce_temperature", "taps")
_LNCC = ("lncc_window", "lncc_epsilon", "lncc_stride")


class LossSpec(NamedTuple):
    """What there is to know of a loss beside its function.

    Attributes:
        scale: factor of the similarity, so that the loss's best λ lies inside the sweep.
        settings: fields of `ObjectiveConfig` that this loss reads and not every loss does.
        reach: how many voxels away, along an axis, a voxel's similarity still sees intensities.
        contrastive: whether it compares the features of stage 1's encoders.
        aligned: whether it sees the moving subject's own image in the fixed contrast, which
            training alone can have.
        compared: whether `--loss=all` trains it: the paper's six and lncc.
    """

    scale: float
    settings: tuple[str, ...] = ()
    reach: Callable[[Any], int] = lambda config: 0
    contrastive: bool = False
    aligned: bool = False
    compared: bool = False


LOSS_SPECS: dict[str, LossSpec] = {
    "mi": LossSpec(1.0, _MI, compared=True),
    "lmi": LossSpec(1.0, ("lmi_patch", "mi_margin", "mi_bins"), compared=True),
    "ngf": LossSpec(15.0, ("ngf_eta",), reach=lambda config: 1, compared=True),
    "mind": LossSpec(
        90.0,
        ("mind_radius", "mind_dilation"),
        reach=lambda config: config.mind_dilation + config.mind_radius,
        compared=True,
    ),
    "nce": LossSpec(1.0, _NCE, contrastive=True, compared=True),
    "nce_mi": LossSpec(1.0, (*_NCE, *_MI), contrastive=True, compared=True),
    "lncc": LossSpec(8.0, _LNCC, reach=lambda config: config.lncc_window // 2, compared=True),
    "mse": LossSpec(100.0),
    "intra_lncc": LossSpec(8.0, _LNCC, reach=lambda config: config.lncc_window // 2, aligned=True),
}
"""The losses by name, in the order in which they are listed and compared."""

LOSSES = tuple(LOSS_SPECS)
CONTRASTIVE_LOSSES = tuple(name for name, spec in LOSS_SPECS.items() if spec.contrastive)
COMPARED_LOSSES = tuple(name for name, spec in LOSS_SPECS.items() if spec.compared)
DIRECT_LOSSES = tuple(n for n, s in LOSS_SPECS.items() if not (s.contrastive or s.aligned))
"""Losses that two images alone allow, without a trained network."""

Regularizer = Literal["diffusion", "l2"]
if TYPE_CHECKING:
    Loss = str
else:
    Loss = Literal[LOSSES]  # so that --help lists the table's names


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and how the velocity becomes a displacement."""

    loss: Loss = "nce_mi"
    """mi, lmi, ngf, mind, nce, nce_mi (0.1 nce + 0.9 mi, the paper's), lncc, mse (one contrast), or
    intra_lncc: lncc with the moving subject's own image in the fixed contrast, for training
    subjects who have both in alignment; the network still sees both contrasts."""
    label_weight: float = 0.0
    """Weight of 1 − Dice between the training subjects' warped labels (linear), for networks that
    may learn from labels; 0 trains without them."""
    teacher_weight: float = 1.0
    """The same weight in pairs of which a subject has its labels from --teacher."""
    regularizer: Regularizer = "diffusion"
    """diffusion (mean ‖∇v‖²) or l2 (mean ‖v‖²)."""
    symmetric: bool = False
    """The similarity at both ends: fixed and moving ∘ exp(v), fixed ∘ exp(−v) and moving."""
    endpoint_fraction: float = 0.0
    """Share of the steps that take λ = 0 or 1; the others draw it from U[0, 1]."""
    squarings: int = 7
    """Squarings in the integration of the velocity."""
    mi_samples: int = 65536
    """mi, nce_mi: voxels drawn inside the masks each step; 0 takes all."""
    mi_margin: int = 4
    """mi, nce_mi, lmi: voxels of background around both brains that the loss sees."""
    mi_bins: int = 32
    """mi, nce_mi, lmi: bins of the joint histogram on [0, 1]."""
    lmi_patch: int = 16
    """lmi: side of the cubes, voxels."""
    ngf_eta: float = 0.05
    """ngf: edge strength, intensity range per voxel; weaker edges count little."""
    mind_radius: int = 1
    """mind: radius of MIND-SSC's patches, voxels."""
    mind_dilation: int = 2
    """mind: distance of MIND-SSC's neighbours, voxels."""
    nce_locations: int = 512
    """nce, nce_mi: locations per scale for PatchNCE, one positive and N − 1 negatives each."""
    nce_temperature: float = 0.07
    """nce, nce_mi: temperature τ of PatchNCE."""
    taps: str = "0,1,2"
    """nce, nce_mi: encoder scales that PatchNCE compares, 0 the finest."""
    lncc_window: int = LNCC_WINDOW
    """lncc, intra_lncc: side of the window, voxels, odd."""
    lncc_epsilon: float = LNCC_EPSILON
    """lncc, intra_lncc: ε under the variances, against the noise of flat windows."""
    lncc_stride: int = 1
    """lncc, intra_lncc: windows around every so many voxels along each axis; 2 spares a third of
    an optimisation step."""

    def __post_init__(self):
        """Refuse unknown names, numbers out of range and settings that the loss does not read."""
        require_choice("loss", self.loss, LOSSES)
        require_choice("regularizer", self.regularizer, ("diffusion", "l2"))
        require_share("endpoint-fraction", self.endpoint_fraction)
        lowest = {
            "squarings": 0,
            "mi_samples": 0,
            "mi_margin": 0,
            "mi_bins": 2,
            "lmi_patch": 2,
            "mind_radius": 0,
            "mind_dilation": 1,
            "nce_locations": 2,
            "lncc_window": 3,
            "lncc_stride": 1,
        }
        for name, low in lowest.items():
            if getattr(self, name) < low:
                _refuse(name, f"at least {low}", getattr(self, name))
        for name in ("ngf_eta", "nce_temperature", "lncc_epsilon"):
            if not getattr(self, name) > 0:
                _refuse(name, "above 0", getattr(self, name))
        for name in ("label_weight", "teacher_weight"):
            if not getattr(self, name) >= 0:
                _refuse(name, "at least 0", getattr(self, name))
        if self.lncc_window % 2 == 0:
            _refuse("lncc_window", "an odd number", self.lncc_window)
        if not self.taps or any(part not in ("0", "1", "2") for part in self.taps.split(",")):
            _refuse("taps", "some of 0,1,2", self.taps)
        refuse_unread(self)

    @property
    def unread(self) -> dict[str, str]:
        """The settings of other losses, and which losses read them."""
        reasons: dict[str, str] = {}
        for name in {name for spec in LOSS_SPECS.values() for name in spec.settings}:
            if name not in self.spec.settings:
                readers = [loss for loss, spec in LOSS_SPECS.items() if name in spec.settings]
                reasons[name] = f"read only by {' and '.join(readers)}, not by --loss={self.loss}"
        return dict(sorted(reasons.items()))

    @property
    def spec(self) -> LossSpec:
        """The loss's row of `LOSS_SPECS`."""
        return LOSS_SPECS[self.loss]

    @property
    def scales(self) -> tuple[int, ...]:
        """`taps` as numbers, ascending, each once."""
        return tuple(sorted({int(part) for part in self.taps.split(",")}))

    @property
    def of_a_pair(self) -> "ObjectiveConfig":
        """The objective that two images alone allow: `lncc` for `intra_lncc`."""
        if not self.spec.aligned:
            return self
        return dataclasses.replace(self, loss=self.loss.removeprefix("intra_"))

    @property
    def reach(self) -> int:
        """How many voxels away, along an axis, a voxel's similarity still sees intensities."""
        return self.spec.reach(self)


def _refuse(name, wanted, got):
    raise InputError(f"{flag_of(name)}: expected {wanted}, got {got}.")
