"""Which contrasts two images have: as the flag says, as their names say, or as they look."""

import re
from pathlib import Path

import numpy as np

from jaxreg.configuration.domains import domains_of_model
from jaxreg.data.intensities import normalize
from jaxreg.io.stored_images import MemoryImage
from jaxreg.registration.contrast_check import T1W_FROM, depth_contrast
from jaxreg.registration.inputs import Subject

SUFFIXES = (
    *("T1w", "T2w", "PDw", "T2starw", "FLAIR", "PDT2", "inplaneT1", "inplaneT2", "angio", "SWI"),
    *("T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap", "UNIT1"),
    *("MP2RAGE", "MPM", "MTS", "MTR", "MEGRE", "bold", "sbref", "dwi", "asl", "m0scan", "epi"),
    *("pet", "CT"),
)
"""Suffixes of BIDS that name a contrast."""
_OTHER_NAMES = {"mprage": "T1w", "spgr": "T1w", "t1": "T1w", "t2": "T2w", "pd": "PDw"}
_KNOWN = {name.lower(): name for name in SUFFIXES} | _OTHER_NAMES
_DOUBT = 0.03
"""Depth contrasts this near to the limit between T1w and T2w say nothing."""
_COARSE_MM = 2.0


def contrast_in_name(path: Path | MemoryImage, own: tuple[str, str]) -> str | None:
    """The contrast that stands last in a file's name, between underscores, hyphens or points."""
    known = _KNOWN | {domain.lower(): domain for domain in own}
    parts = re.split(r"[_\-.]", path.name)
    return next((known[part.lower()] for part in reversed(parts) if part.lower() in known), None)


def look_of(subject: Subject) -> str | None:
    """T1w or T2w where a brain clearly looks like one of them, else None."""
    if not subject.brain_known:
        return None
    steps = tuple(max(1, int(_COARSE_MM / s)) for s in subject.image.spacing_mm)
    part = tuple(slice(None, None, step) for step in steps)
    mask = subject.mask[part]
    if not mask.any():
        return None
    image = normalize(subject.image.array[part] - np.float32(subject.zero), mask)
    x, y, z = (s * n for s, n in zip(subject.image.spacing_mm, steps, strict=True))
    contrast = depth_contrast(image, mask, (x, y, z))
    if not abs(contrast - T1W_FROM) >= _DOUBT:  # nor where it is no number
        return None
    return "T1w" if contrast > T1W_FROM else "T2w"


def contrasts_of(
    given: str | None, fixed: Subject, moving: Subject, own: tuple[str, str]
) -> tuple[str, str]:
    """(fixed, moving) contrasts: as given, else from the names, else as they look.

    Where one image says nothing it is taken for the other one's partner in the model, and where
    neither says anything the order is the model's.

    Raises:
        InputError: contrasts were given that are not the model's.
    """
    if given is not None:
        return domains_of_model(given, own)
    looks_tell = sorted(own) == ["T1w", "T2w"]
    found = [
        contrast_in_name(side.path, own) or (look_of(side) if looks_tell else None)
        for side in (fixed, moving)
    ]
    partner = {own[0]: own[1], own[1]: own[0]}
    first = found[0] or partner.get(found[1] or own[1], own[0])
    second = found[1] or partner.get(found[0] or own[0], own[1])
    return first, second
