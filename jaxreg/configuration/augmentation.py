"""What stage 2 changes at random in the images that the network sees; stage 1 has none of it."""

import dataclasses
from dataclasses import dataclass

from jaxreg.errors import require_share


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of what the network sees in training; the loss sees the true images."""

    vary: bool = False
    """A random gamma, bias field, blur and noise in what the network sees; not in the loss."""
    synthetic_fraction: float = 0.0
    """Share of the images that the network sees as made from the labels with random contrast
    (SynthMorph); the loss sees the true ones."""
    drop_hindbrain_fraction: float = 0.0
    """Share of the images that the network sees without cerebellum and brain stem, as some brain
    extractions leave them (by the labels); the loss sees all."""
    pose_fraction: float = 0.0
    """Share of the pairs that are turned, shifted and scaled at random, the moving image a little
    further than the fixed one, so that the network does not learn places by heart."""
    mixed_anatomy_fraction: float = 0.0
    """Share of the pairs whose moving subject the network itself moves a part of the way to the
    fixed one, or away from it, so that its anatomy is a mixture of both."""
    slices_fraction: float = 0.0
    """Share of the images that the network sees in thick slices across one axis, as clinical scans
    are; the loss sees the true ones."""

    def __post_init__(self):
        """Refuse what is no share."""
        for field in dataclasses.fields(self):
            if field.name.endswith("_fraction"):
                require_share(field.name.replace("_", "-"), getattr(self, field.name))

    @property
    def needs_labels(self) -> bool:
        """Whether the label maps of training subjects are read."""
        return self.synthetic_fraction > 0 or self.drop_hindbrain_fraction > 0
