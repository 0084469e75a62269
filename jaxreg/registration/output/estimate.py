"""The Dice that a registration most likely has, estimated from both images' own segmentations.

Both brains are segmented before they are registered. The overlap of the fixed segmentation with the
moved one is lower than the Dice of true labels where a segmentation is wrong, and higher where both
are wrong alike; what it says of the Dice was learned on validation pairs (docs/trust.md).
"""

import functools

import numpy as np
from jaxtyping import Float, UInt8

from jaxreg.data.label_codes import REST
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import Chain, map_points, resample
from jaxreg.segmentation.segment import FoundBrain
from jaxreg.segmentation.template import GRID


def own_overlap(
    fixed: FoundBrain, moving: FoundBrain, chain: Chain
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """(Dice, size of the smaller one in voxels) of each structure of the two segmentations.

    `chain` takes the fixed image's millimetres to the moving one's. The overlap is taken on the
    template grid laid onto the fixed brain, in the order of the network's codes.
    """
    codes, affine = _codes(fixed), fixed.to_image @ GRID.affine
    source = Volume(_codes(moving), moving.to_image @ GRID.affine)
    there = functools.partial(map_points, chain)
    moved = resample(source, there, Grid(GRID.shape, affine), order=0)
    both = np.bincount(codes[codes == moved], minlength=REST + 1)
    one, other = (np.bincount(c.ravel(), minlength=REST + 1) for c in (codes, moved))
    dice = 2 * both / np.maximum(one + other, 1)
    return dice[1:REST], np.minimum(one, other)[1:REST].astype(float)


def _codes(brain: FoundBrain) -> UInt8[np.ndarray, "i j k"]:
    """The likeliest class at each voxel of the template grid."""
    return np.argmax(brain.probabilities, axis=-1).astype(np.uint8)
