"""A subject's brain and labels: from files, from what the image shows, or found by segmentation.

Data know no segmentation network: what finds a brain is given as a function.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from jaxreg.configuration.registration import Extraction
from jaxreg.data.foreground import foreground
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Volume
from jaxreg.io import images
from jaxreg.io.headers import opened
from jaxreg.io.images import Remark, unheard

IDENTITY = np.eye(4)
Origin = Literal["given", "automatic", "extracted", "n/a"]
"""Where a mask comes from: a file, segmentation, the image, which is an extracted brain, or
nowhere, so that the head counts as brain. Of labels: a file, segmentation, or there are none."""


@runtime_checkable
class Found(Protocol):
    """A brain on the grid of its image, with FreeSurfer's labels."""

    @property
    def mask(self) -> Any:
        """The brain, as booleans."""
        ...

    @property
    def labels(self) -> Any:
        """FreeSurfer's numbers, 0 outside the brain."""
        ...

    @property
    def doubt(self) -> str | None:
        """Why somebody should look at it first; None where nothing speaks against it."""
        ...


Finder = Callable[[Volume], Found]
"""Finds a brain; raises InputError where there is none."""


def no_finder(image: Volume) -> Found:
    """In place of a segmentation where there is none.

    Raises:
        InputError: always.
    """
    raise InputError("there is no segmentation that would find it.")


class Brains(NamedTuple):
    """How brains, and labels if wanted, are found where no files have them."""

    find: Finder = no_finder
    extract: Extraction = "auto"
    labels: bool = False


class Brain(NamedTuple):
    """A brain on its image's grid; labels only where they were made by segmentation."""

    mask: Bool[np.ndarray, "x y z"]
    origin: Origin
    labels: Volume | None = None

    @property
    def known(self) -> bool:
        """Whether the mask is that of a brain which other images of the subject may share."""
        return self.origin in ("given", "automatic")


def brain_of(
    path: Path,
    image: Volume,
    mask: Path | None,
    brains: Brains,
    *,
    labels: bool = False,
    remark: Remark = unheard,
) -> Brain:
    """The brain in an image: that of the mask's file, found by segmentation, or what it shows.

    With `labels` there are automatic ones, or a remark that says why there are none.

    Raises:
        InputError: an unusable mask, or no brain found where one has to be.
    """
    shown = None if mask is not None else foreground(image)
    always, auto = (brains.extract == setting for setting in ("always", "auto"))
    if shown is not None and (always or (auto and not shown.is_brain)):
        try:
            found = _found(path, image, brains, remark)
        except InputError as error:
            raise InputError(
                f"{path}: {error} Give a brain mask, or take the image as it is (--extract never)."
            ) from error
        made = _labels_of(found, image) if labels else None
        return Brain(np.asarray(found.mask, bool), "automatic", made)
    if shown is None:
        assert mask is not None
        brain = _given(mask, image, remark)
        origin: Origin = "given"
    else:
        brain, origin = shown.mask, "extracted" if shown.is_brain else "n/a"
    if not brain.any():
        where = mask or path
        raise InputError(f"{where}: expected a brain in the image's field of view, got none.")
    if not labels:
        return Brain(brain, origin)
    try:
        made = _labels_of(_found(path, image, brains, remark), image)
    except InputError as error:
        remark(f"{path}: no automatic labels: {error}")
        made = None
    return Brain(brain, origin, made)


def _found(path: Path, image: Volume, brains: Brains, remark: Remark) -> Found:
    """What segmentation finds in an image, with a remark where that is doubtful."""
    found = brains.find(image)
    if found.doubt is not None:
        remark(f"{path}: {found.doubt}.")
    return found


def _labels_of(found: Found, image: Volume) -> Volume:
    return Volume(np.asarray(found.labels, np.int32), image.affine)


def _given(path: Path, image: Volume, remark: Remark) -> Bool[np.ndarray, "x y z"]:
    mask = images.read_mask(opened(path, remark), remark=remark)
    return resampling.mask_like(mask, image, IDENTITY)
