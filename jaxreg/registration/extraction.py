"""Brains found by the segmentation networks before a pair is registered: pose, and masks."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.label_codes import REST
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.pair import Pair
from jaxreg.registration.inputs import Subject
from jaxreg.segmentation.networks import load_segmentation
from jaxreg.segmentation.own_grid import codes_on, on_own_grid
from jaxreg.segmentation.segment import find_brain

TURNED_DEGREES = 45.0
"""From this angle between two heads on, by their headers, the turn is named."""


def with_brains(
    fixed: Subject, moving: Subject, config: RegisterConfig
) -> tuple[Subject, Subject, tuple[str, ...]]:
    """Both sides with the brain that segmentation finds in them, and warnings.

    The brain gives the pose, and the mask where none is known; masks that were given stay.
    `--extract always` replaces what was taken for a brain that somebody had cut out, and
    `--extract never` asks for no segmentation.

    Raises:
        InputError: an image without a known brain shows none, or the segmentation networks cannot
            be read.
    """
    if config.extract == "never":
        return fixed, moving, ()
    fixed, lines = with_brain("fixed", fixed, config)
    moving, more = with_brain("moving", moving, config)
    return fixed, moving, (*lines, *more)


def without_ignored(subject: Subject) -> Volume:
    """The image with the median of its brain where it is to be ignored."""
    image, ignored = subject.image, subject.ignore
    if ignored is None or not (subject.mask & ~ignored).any():
        return image
    typical = np.median(image.array[subject.mask & ~ignored])
    return image._replace(array=np.where(ignored, typical, image.array).astype(np.float32))


def with_labels(
    pair: Pair, fixed: Subject, moving: Subject, affine: Float[np.ndarray, "4 4"], grid: Grid
) -> Pair:
    """A pair on a grid with both own segmentations, where both brains were found.

    `affine` takes fixed to moving millimetres. The rest of a brain that is no structure counts as
    background.
    """
    if fixed.brain is None or moving.brain is None:
        return pair
    fixed_codes, _ = codes_on(fixed.brain, grid)
    moving_codes, _ = codes_on(moving.brain, Grid(grid.shape, affine @ grid.affine))
    return pair._replace(
        fixed_labels=jnp.asarray(np.where(fixed_codes == REST, 0, fixed_codes)),
        moving_labels=jnp.asarray(np.where(moving_codes == REST, 0, moving_codes)),
    )


def with_brain(
    role: str, subject: Subject, config: RegisterConfig
) -> tuple[Subject, tuple[str, ...]]:
    """A side with the brain found in it, and with its mask unless the own one is to be kept.

    Raises:
        InputError: as of `with_brains`.
    """
    _, networks = load_segmentation(config.segmentation)
    kept = "mask" in subject.files or (subject.brain_known and config.extract == "auto")
    image = without_ignored(subject)
    try:
        brain = find_brain(image, networks)
        mask = subject.mask if kept else on_own_grid(image, brain)[1]
    except InputError as error:
        if kept:
            return subject, (f"{role}: segmentation found no brain: {error}",)
        raise InputError(
            f"{subject.path}: {error} Give a brain mask (--{role}-mask), or register the image as "
            "it is (--extract never)."
        ) from error
    found = subject._replace(brain=brain)
    if kept:
        return found, ()
    litres = float(mask.sum()) * subject.image.voxel_ml / 1000
    remark = f"{role}: the brain was found by segmentation, {litres:.2f} litres"
    cut = found._replace(
        mask=mask,
        brain_known=True,
        extracted=True,
        remarks=(*subject.remarks, remark),
        # The last warning of an image without a known brain says that the whole head is registered.
        warnings=subject.warnings if subject.brain_known else subject.warnings[:-1],
    )
    return cut, ()


def turn_of(affine: Float[np.ndarray, "4 4"]) -> tuple[str, ...]:
    """A line where one head is turned against the other by more than heads in scanners are."""
    u, _, vt = np.linalg.svd(affine[:3, :3])
    turn = Rotation.from_matrix(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt).as_rotvec()
    degrees = float(np.degrees(np.linalg.norm(turn)))
    if degrees < TURNED_DEGREES:
        return ()
    axis = ("left–right", "back–front", "bottom–top")[int(np.argmax(np.abs(turn)))]
    return (
        f"the moving head is turned against the fixed one by {degrees:.0f}°, mostly about the "
        f"{axis} axis, as the two headers have them; is one of the headers wrong?",
    )
