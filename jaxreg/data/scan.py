"""An image as a scanner gives it, read and checked: it has to be able to show a head."""

import numpy as np
from jaxtyping import Float

from jaxreg.data.foreground import background_value
from jaxreg.errors import InputError
from jaxreg.geometry.field import SHEAR, shear
from jaxreg.geometry.grid import Volume
from jaxreg.io.flatness import flatness
from jaxreg.io.headers import Header, read_header
from jaxreg.io.images import LABEL_OFF, read_image
from jaxreg.io.stored_images import Source, open_image

FEWEST_VOXELS, EXTENT_MM = 5, (20.0, 1500.0)
"""Below or beyond, a header is wrong, or what it describes is no head."""
LARGEST = 1e12
"""Intensities beyond it are damage, and lose their digits in float32 sums."""
LABEL_VALUES, LABEL_FLATNESS = 20_000, 0.35
"""A label map has whole values, at most so many, and its foreground voxels mostly equal
their neighbours: 0.56 to 0.93 of them in label maps of 1 to 8 mm, 0.13 at most in images of 50 grey
levels and more."""


def read_scan(image: Source) -> tuple[Header, Volume]:
    """The header of an image in the file's own order, and its voxels in RAS order.

    Raises:
        InputError: a file that cannot be read, a grid that cannot be that of a head, intensities
            beyond float32's digits, a label map in place of an image.
    """
    stored = open_image(image)
    header = read_header(stored)
    check_plausible(image, header)
    volume = read_image(stored)
    check_intensities(image, volume.array)
    if looks_like_labels(volume.array):
        raise InputError(
            f"{image}: expected an image, got what looks like a label map or a mask; these are "
            "given beside an image (register --fixed-labels and --fixed-mask, --moving-labels and "
            "--moving-mask; prepare: columns dseg and mask)."
        )
    return header, volume


def looks_like_labels(array: Float[np.ndarray, "x y z"]) -> bool:
    """Whether an image is made of few whole values in flat regions, as label maps and masks are."""
    whole = np.rint(array)
    if np.abs(array - whole).max() > LABEL_OFF:
        return False
    array = whole
    if len(np.unique(array)) > LABEL_VALUES:
        return False
    return flatness(array, background=background_value(array) or 0.0) > LABEL_FLATNESS


def check_intensities(path: Source, array: Float[np.ndarray, "x y z"]) -> None:
    """Raise InputError where the values of an image are too large to be intensities."""
    if np.abs(array).max() > LARGEST:
        raise InputError(f"{path}: expected intensities, got values up to {array.max():g}.")


def check_plausible(path: Source, header: Header) -> None:
    """Raise InputError where a grid cannot be that of a head, or ITK cannot express it."""
    shape = header.grid.shape
    if min(shape) < FEWEST_VOXELS:
        raise InputError(
            f"{path}: expected at least {FEWEST_VOXELS} voxels along each axis, got {shape}."
        )
    low, high = EXTENT_MM
    extent = [n * s for n, s in zip(shape, header.spacing_mm, strict=True)]
    if not low <= min(extent) <= max(extent) <= high:
        spans = " × ".join(f"{e:.4g}" for e in extent)
        raise InputError(
            f"{path}: expected a field of view of {low:g} to {high:g} mm, got {spans} mm; "
            "is the voxel size wrong?"
        )
    sheared = shear(header.grid.affine)
    if sheared > SHEAR:
        raise InputError(
            f"{path}: expected orthogonal axes, got a cosine of {sheared:.3g} between two; ITK "
            "cannot express that: resample the image first."
        )
