"""The linear starts of a registration: affines by registration, or the one of a file."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxreg.configuration.registration import AUTO, RegisterConfig
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io.files import is_file
from jaxreg.io.images import NIFTI
from jaxreg.io.itk_transforms import read_transform
from jaxreg.registration.inputs import Subject
from jaxreg.registration.linear.affine import ImplausibleScales, check_overlap, register_affine
from jaxreg.registration.linear.overlap import Overlap, overlap_between

LOST_OVERLAP = 0.02
"""So much mean Dice of both segmentations may an affine by intensities lose."""
POOR_OVERLAP = 0.5
"""Below this, segmentations are no guide: those of two subjects overlapped by 0.54 to 0.73."""


def linear_starts(
    fixed: Subject,
    moving: Subject,
    config: RegisterConfig,
    *,
    given: Float[np.ndarray, "4 4"] | None = None,
) -> dict[str, Float[np.ndarray, "4 4"]]:
    """The affines (fixed to moving, RAS mm) to choose from, by name: registered, or from a file.

    `given` is the matrix of a configuration that starts from one in memory.

    Raises:
        InputError: an unusable file, fields of view that do not overlap, no believable result.
    """
    mode = config.init_mode
    if mode is None:
        assert config.init is not None
        matrix = read_affine(config.init) if given is None else given
        there = np.linalg.inv(matrix) @ moving.image.affine
        check_overlap(fixed.image, Volume(moving.image.array, there))
        return {str(config.init): matrix}
    register = functools.partial(
        register_affine,
        fixed.image,
        moving.image,
        fixed_mask=fixed.mask if fixed.brain_known else None,
        moving_mask=moving.mask if moving.brain_known else None,
        fixed_ignore=fixed.ignore,
        moving_ignore=moving.ignore,
    )
    overlap = overlap_between(fixed, moving)
    if overlap is not None and mode in (AUTO, "rigid", "affine"):
        if config.transform == "deformable" and mode != "rigid" and overlap.whole:
            return {"segmentation": overlap.start}
        segmented = overlap.best_affine()
        if mode == "rigid":
            return {"segmentation, refined": register(mode="rigid", near=segmented)}
        return _refined(segmented, overlap, register)
    if mode != AUTO:
        return {mode: register(mode=mode)}
    rigid = register(mode="rigid", fine=False)
    others = {"rigid": rigid, "none": np.eye(4)}
    try:
        return {"affine": register(mode="affine", rigid=rigid), **others}
    except ImplausibleScales:  # as where one brain lacks a part, which is what the others are for
        return others


def _refined(
    segmented: Float[np.ndarray, "4 4"],
    overlap: Overlap,
    register: Callable[..., Float[np.ndarray, "4 4"]],
) -> dict[str, Float[np.ndarray, "4 4"]]:
    """The affine by segmentation, and what the intensities make of it.

    Within one subject the intensities are exact to a fraction of a millimetre. Between two subjects
    they often pull the structures apart again, and what they make is not taken. Where a brain lacks
    a part, or the segmentations hardly agree, both remain to choose from.
    """
    own = {"segmentation": segmented}
    try:
        refined = register(mode="affine", near=segmented)
    except ImplausibleScales:
        return own
    if not overlap.whole or overlap.dice(segmented) < POOR_OVERLAP:
        return {"segmentation, refined": refined, **own}
    if overlap.dice(refined) < overlap.dice(segmented) - LOST_OVERLAP:
        return own
    return {"segmentation, refined": refined}


def read_affine(path: Path | str) -> Float[np.ndarray, "4 4"]:
    """The one matrix (fixed to moving, RAS mm) of an ITK file of affines.

    Raises:
        InputError: not readable, or with a field in it.
    """
    if str(path).endswith(NIFTI) or not is_file(path):
        raise InputError(
            f"--init: expected auto, none, com, rigid, affine or an ITK affine file, got {path}."
        )
    matrix = np.eye(4)
    for element in read_transform(path):
        if not isinstance(element, np.ndarray):
            raise InputError(f"{path}: expected affines alone for --init, got a field.")
        matrix = element @ matrix
    return matrix
