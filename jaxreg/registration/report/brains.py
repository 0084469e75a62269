"""Pictures of a segmented image for the report: its brain, its structures, estimated Dice."""

import io

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image
from scipy import ndimage

from jaxreg.data.label_codes import decode
from jaxreg.evaluation.figures.colours import dice_colour, structure_colours
from jaxreg.geometry.grid import Volume
from jaxreg.registration.inputs import Subject
from jaxreg.segmentation.brain import FoundBrain
from jaxreg.segmentation.segment import sampled
from jaxreg.segmentation.template import GRID

_SLICES = 4
"""Per plane, evenly spaced through the brain."""
_OUTLINE = (255, 255, 0)
_SHARE = 0.4
"""How much of a structure's colour is mixed into the image."""
_DARKEST = 0.6
"""How bright a colour that must be read is where the image is black."""


def brain_picture(subject: Subject, brain: FoundBrain) -> bytes:
    """A PNG of slices in three planes: the image, its mask outlined, its structures in colour.

    The head is shown upright, on the template grid laid onto the brain, front and top of the slices
    up, the patient's left at the left.
    """
    own = Volume(subject.mask.astype(np.float32), subject.image.affine)
    mask = sampled(own, brain.to_image, GRID) > 0.5
    return _page(subject, brain, decode(brain.codes), structure_colours(), mask, outline=True)


def estimate_picture(subject: Subject, brain: FoundBrain, dice: dict[int, float]) -> bytes:
    """A PNG of the same slices, each structure in the colour of its estimated Dice.

    `dice` has it by FreeSurfer's number; what it lacks has no colour.
    """
    numbers = decode(brain.codes)
    labels = np.where(np.isin(numbers, [*dice]), numbers, 0).astype(np.uint8)
    colours = np.zeros((256, 3))
    for number, value in dice.items():
        colours[number] = dice_colour(value)
    return _page(subject, brain, labels, colours, brain.codes > 0, outline=False)


def _page(
    subject: Subject,
    brain: FoundBrain,
    labels: UInt8[np.ndarray, "x y z"],
    colours: Float[np.ndarray, "256 3"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    outline: bool,
) -> bytes:
    """A PNG of slices in three planes through a mask on the template grid laid onto a brain."""
    shows_all = subject.ignore is None  # else the brain was sought without what is ignored
    image = brain.seen if shows_all else sampled(subject.image, brain.to_image, GRID)
    rows = [_row(image, labels, colours, mask, normal, outline) for normal in (2, 1, 0)]
    width = max(row.shape[1] for row in rows)
    page = np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    )
    png = io.BytesIO()
    Image.fromarray(page).save(png, format="PNG")
    return png.getvalue()


def _row(
    image: Float32[np.ndarray, "x y z"],
    labels: UInt8[np.ndarray, "x y z"],
    colours: Float[np.ndarray, "256 3"],
    mask: Bool[np.ndarray, "x y z"],
    normal: int,
    outline: bool,
) -> UInt8[np.ndarray, "h w c"]:
    """Some slices across an axis, side by side, each voxel as 2 × 2 pixels."""
    inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != normal)))
    low, high = (inside[0], inside[-1]) if len(inside) else (0, mask.shape[normal] - 1)
    top = float(np.percentile(image[mask], 99.5)) if mask.any() else 1.0
    shares = (np.arange(_SLICES) + 1) / (_SLICES + 1)
    slices = []
    for share in shares:
        index = round(float(low + share * (high - low)))
        at = tuple(np.take(volume, index, axis=normal) for volume in (image, labels, mask))
        slices.append(_slice(at[0], at[1], colours, at[2] if outline else None, top))
    return np.concatenate(slices, axis=1)


def _slice(
    image: Float32[np.ndarray, "i j"],
    labels: UInt8[np.ndarray, "i j"],
    colours: Float[np.ndarray, "256 3"],
    mask: Bool[np.ndarray, "i j"] | None,
    top: float,
) -> UInt8[np.ndarray, "h w c"]:
    """One slice as an RGB picture; its second axis points up.

    With a mask, that is outlined, and the image shows through the colours. Without one, it only
    makes them darker, so that they can be read.
    """
    grey = np.clip(image / max(top, 1e-6), 0, 1)[..., None] * np.full(3, 255.0)
    colour = 255 * colours[labels]
    if mask is None:
        tinted = colour * (_DARKEST + (1 - _DARKEST) * grey / 255)
    else:
        tinted = (1 - _SHARE) * grey + _SHARE * colour
    mixed = np.where((labels > 0)[..., None], tinted, grey)
    if mask is not None:
        mixed[mask & ~np.asarray(ndimage.binary_erosion(mask), bool)] = _OUTLINE
    upright = np.rot90(mixed.astype(np.uint8))
    return upright.repeat(2, axis=0).repeat(2, axis=1)
