"""What stage 2 minimises: the similarity, the regulariser, and their numbers."""

import dataclasses
from dataclasses import dataclass

from jaxreg.errors import InputError, require_choice
from jaxreg.losses.regularizers import diffusion, l2

LOSSES = ("mi", "lmi", "ngf", "mind", "nce", "nce_mi", "lncc", "mse", "intra_lncc")
CONTRASTIVE_LOSSES = ("nce", "nce_mi")
COMPARED_LOSSES = ("mi", "lmi", "ngf", "mind", "nce", "nce_mi", "lncc")
"""The paper's six and lncc: what `--loss=all` trains."""
ALIGNED_LOSSES = ("intra_lncc",)
"""Losses of training alone: they see the moving person's own image in the fixed contrast."""
REGULARIZERS = {"diffusion": diffusion, "l2": l2}


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and how the velocity becomes a displacement."""

    loss: str = "nce_mi"
    """mi, lmi, ngf, mind, nce, nce_mi (0.1 nce + 0.9 mi, the paper's), lncc, mse (one contrast), or
    intra_lncc: lncc with the moving person's own image in the fixed contrast, for training people
    who have both in alignment; the network still sees both contrasts."""
    label_weight: float = 0.0
    """Weight of 1 − Dice between the training people's warped labels (linear), for networks that
    may learn from labels; 0 trains without them."""
    regularizer: str = "diffusion"
    """diffusion (mean ‖∇v‖²) or l2 (mean ‖v‖²)."""
    symmetric: bool = False
    """The similarity at both ends: fixed and moving ∘ exp(v), fixed ∘ exp(−v) and moving."""
    endpoint_fraction: float = 0.0
    """Share of the steps that take λ = 0 or 1; the others draw it from U[0, 1]."""
    squarings: int = 7
    """Squarings in the integration of the velocity."""
    mi_samples: int = 65536
    """Voxels drawn inside the masks each step for MI; 0 takes all."""
    mi_margin: int = 4
    """Voxels of background around both brains that mi, nce_mi and lmi see."""
    mi_bins: int = 32
    """Bins of the joint histogram on [0, 1], for mi, nce_mi and lmi."""
    lmi_patch: int = 16
    """Side of local MI's cubes, voxels."""
    ngf_eta: float = 0.05
    """Edge strength of NGF, intensity range per voxel: weaker edges count little."""
    mind_radius: int = 1
    """Radius of MIND-SSC's patches, voxels."""
    mind_dilation: int = 2
    """Distance of MIND-SSC's neighbours, voxels."""
    nce_locations: int = 512
    """Locations per scale for PatchNCE: one positive and N − 1 negatives each."""
    nce_temperature: float = 0.07
    """Temperature τ of PatchNCE."""
    taps: str = "0,1,2"
    """Encoder scales that PatchNCE compares, 0 the finest."""
    lncc_window: int = 7
    """Side of the LNCC window, voxels, odd."""
    lncc_epsilon: float = 1e-5
    """ε under the variances of LNCC, against the noise of flat windows."""

    def __post_init__(self):
        """Refuse unknown names and numbers that cannot be meant, before anything is read."""
        require_choice("loss", self.loss, LOSSES)
        require_choice("regularizer", self.regularizer, tuple(REGULARIZERS))
        if not 0 <= self.endpoint_fraction <= 1:
            raise InputError(
                f"--endpoint-fraction: expected a share in [0, 1], got {self.endpoint_fraction}."
            )
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
        }
        for name, low in lowest.items():
            if getattr(self, name) < low:
                _refuse(name, f"at least {low}", getattr(self, name))
        for name in ("ngf_eta", "nce_temperature", "lncc_epsilon"):
            if not getattr(self, name) > 0:
                _refuse(name, "above 0", getattr(self, name))
        if not self.label_weight >= 0:
            _refuse("label_weight", "at least 0", self.label_weight)
        if self.lncc_window % 2 == 0:
            _refuse("lncc_window", "an odd number", self.lncc_window)
        if not self.taps or any(part not in ("0", "1", "2") for part in self.taps.split(",")):
            _refuse("taps", "some of 0,1,2", self.taps)

    @property
    def scales(self) -> tuple[int, ...]:
        """`taps` as numbers, ascending, each once."""
        return tuple(sorted({int(part) for part in self.taps.split(",")}))

    @property
    def of_a_pair(self) -> "ObjectiveConfig":
        """The objective that two images alone allow: `lncc` for `intra_lncc`."""
        if self.loss not in ALIGNED_LOSSES:
            return self
        return dataclasses.replace(self, loss=self.loss.removeprefix("intra_"))

    @property
    def reach(self) -> int:
        """How many voxels off a voxel's similarity still sees intensities, in an axis."""
        windows = {
            "lncc": self.lncc_window // 2,
            "ngf": 1,
            "mind": self.mind_dilation + self.mind_radius,
        }
        return windows.get(self.of_a_pair.loss, 0)


def _refuse(name, wanted, got):
    raise InputError(f"--{name.replace('_', '-')}: expected {wanted}, got {got}.")
