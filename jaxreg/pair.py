"""Two subjects on one grid: what every loss and every registration looks at."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, UInt8


class Pair(NamedTuple):
    """Two subjects on one grid, intensities in [0, 1]; with a leading batch axis in a batch.

    A mask is the brain; an ignore mask (a lesion) takes its voxels out of every similarity.
    `moving_in_fixed_contrast` is the moving subject's own image in the fixed contrast, for losses
    within one contrast; labels (0: none) are those of both subjects, for the training of networks
    that know them; `taught` says that a segmentation network made those of either.
    """

    fixed: Float[Array, "x y z 1"]
    moving: Float[Array, "x y z 1"]
    fixed_mask: Bool[Array, "x y z"]
    moving_mask: Bool[Array, "x y z"]
    fixed_ignore: Bool[Array, "x y z"] | None = None
    moving_ignore: Bool[Array, "x y z"] | None = None
    moving_in_fixed_contrast: Float[Array, "x y z 1"] | None = None
    fixed_labels: UInt8[Array, "x y z"] | None = None
    moving_labels: UInt8[Array, "x y z"] | None = None
    taught: Bool[Array, ""] | None = None

    def within_fixed_contrast(self) -> "Pair":
        """The same subjects, both in the contrast of the fixed image (Cao et al., MLMI 2018)."""
        assert self.moving_in_fixed_contrast is not None
        return self._replace(moving=self.moving_in_fixed_contrast, moving_in_fixed_contrast=None)

    def exchanged(self) -> "Pair":
        """The same pair seen from the other end."""
        return Pair(
            self.moving,
            self.fixed,
            self.moving_mask,
            self.fixed_mask,
            self.moving_ignore,
            self.fixed_ignore,
            fixed_labels=self.moving_labels,
            moving_labels=self.fixed_labels,
            taught=self.taught,
        )
