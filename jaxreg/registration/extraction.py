"""Brains cut out of whole heads by the segmentation networks, before a pair is registered."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from jaxreg.configuration.registration import AUTO, RegisterConfig
from jaxreg.errors import InputError
from jaxreg.registration.inputs import Subject
from jaxreg.segmentation.networks import load_segmentation
from jaxreg.segmentation.segment import segment_volume

TURNED_DEGREES = 45.0
"""From this angle between two heads on, by their headers, the turn is named."""


def needs_extraction(fixed: Subject, moving: Subject, config: RegisterConfig) -> bool:
    """Whether a brain has to be found, or is to be found by the settings."""
    if config.extract == "never":
        return False
    return config.extract == "always" or not (fixed.brain_known and moving.brain_known)


def may_segment(fixed: Subject, moving: Subject, config: RegisterConfig) -> bool:
    """Whether a linear start can be taken from segmentations that have not been made yet."""
    found = fixed.template_pose is not None and moving.template_pose is not None
    registered = config.init_mode in (AUTO, "rigid", "affine")
    return config.extract != "never" and registered and not found


def extract(fixed: Subject, moving: Subject, config: RegisterConfig) -> tuple[Subject, Subject]:
    """Both sides segmented: their brains where none are known, and the pose of both.

    Masks that were given stay. `--extract always` replaces what was taken for a brain that somebody
    had cut out.

    Raises:
        InputError: an image shows no brain, or the segmentation networks cannot be read.
    """
    return _segmented("fixed", fixed, config), _segmented("moving", moving, config)


def linear_start(fixed: Subject, moving: Subject) -> Float[np.ndarray, "4 4"] | None:
    """The affine (fixed to moving, RAS mm) of two segmented brains; None where one is not."""
    if fixed.template_pose is None or moving.template_pose is None:
        return None
    return moving.template_pose @ np.linalg.inv(fixed.template_pose)


def _segmented(role: str, subject: Subject, config: RegisterConfig) -> Subject:
    """A side with the pose of its brain, and with its mask unless the own one is to be kept."""
    _, networks = load_segmentation(config.segmentation)
    try:
        found = segment_volume(subject.image, networks)
    except InputError as error:
        raise InputError(
            f"{subject.path}: {error} Give a brain mask (--{role}-mask), or register the image as "
            "it is (--extract never)."
        ) from error
    posed = subject._replace(template_pose=found.to_image)
    if "mask" in subject.files or (subject.brain_known and config.extract == "auto"):
        return posed
    litres = found.mask.sum() * abs(np.linalg.det(subject.image.affine[:3, :3])) / 1e6
    remark = f"{role}: the brain was found by segmentation, {litres:.2f} litres"
    return posed._replace(
        mask=found.mask,
        brain_known=True,
        remarks=(*subject.remarks, remark),
        # The last warning of an image without a known brain says that the whole head is registered.
        warnings=subject.warnings if subject.brain_known else subject.warnings[:-1],
    )


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
