"""Arrays → short base64 text for a web page: quantised to bytes and gzipped.

Every volume is flattened with x fastest: voxel (x, y, z) of a grid of X · Y · Z voxels is byte
x + X · (y + Y · z). Images keep their grid; displacements and maps, smooth as they are, are halved:
voxel i covers the voxels 2i and 2i + 1. Equal arrays give equal text.
"""

import base64
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int8, Real, Shaped, UInt8

from jaxreg import spatial
from jaxreg.io.compression import packed

DETERMINANT_STEPS = 32
"""Levels in which a factor of two of det J is stored: 2 % apart."""
_UNCHANGED = 128


def text(array: Shaped[np.ndarray, "..."]) -> str:
    """The array's bytes, gzipped without a time stamp, as base64."""
    return base64.b64encode(packed(array.tobytes(order="F"))).decode("ascii")


def intensity_window(image: Real[np.ndarray, "x y z"]) -> tuple[float, float]:
    """Intensities of black and white: 0 or less, and the 99.5th percentile of the non-zero."""
    values = image[np.isfinite(image) & (image != 0)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.1, 99.5))
    low = min(0.0, float(low))
    return low, max(float(high), low + 1e-12)


def grey(
    image: Real[np.ndarray, "x y z"], window: tuple[float, float]
) -> UInt8[np.ndarray, "x y z"]:
    """Grey levels 0 … 255 of an image; NaN is black."""
    low, high = window
    scaled = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
    return np.rint(255 * np.nan_to_num(scaled, nan=0)).astype(np.uint8)


def differences(volumes: Sequence[UInt8[np.ndarray, "x y z"]]) -> UInt8[np.ndarray, "x y z n"]:
    """Each volume less the one before it (modulo 256): neighbours in λ are alike, and pack well."""
    stack = np.stack([np.zeros_like(volumes[0]), *volumes], axis=-1)
    return np.diff(stack, axis=-1)


def vectors(
    displacements: Sequence[Float[np.ndarray, "x y z 3"]],
) -> tuple[Int8[np.ndarray, "i j k 3 n"], float]:
    """(values, unit): the displacements at half resolution are `unit` · values.

    They stay in voxels of the full grid. The error is half a unit, a 254th of the largest component
    of all.
    """
    half = np.stack([_halved(u) for u in displacements], axis=-1)
    unit = float(np.abs(half).max()) / 127 or 1.0
    return np.rint(half / unit).astype(np.int8), unit


def determinants(jacobian: Real[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "i j k"]:
    """log₂ det J at half resolution, in steps of 1/`DETERMINANT_STEPS` around 128.

    It is cut off at a quarter and at four; 0 where one of the eight voxels folds (det J ≤ 0).
    """
    folds = ~(jacobian > 0)
    change = np.log2(np.where(folds, 1.0, jacobian)).astype(np.float32)
    change = _halved(np.clip(change, -2, 2)[..., None])[..., 0]
    folded = _halved(folds[..., None].astype(np.float32))[..., 0] > 0
    levels = np.rint(_UNCHANGED + DETERMINANT_STEPS * change)
    return np.where(folded, 0, levels).astype(np.uint8)


def lengths(values_mm: Real[np.ndarray, "x y z"]) -> tuple[UInt8[np.ndarray, "i j k"], float]:
    """(levels, top): lengths at half resolution, 0 … 255 for 0 … `top` mm.

    `top` is their 99.9th percentile; NaN counts as 0.
    """
    half = _halved(np.nan_to_num(values_mm)[..., None].astype(np.float32))[..., 0]
    top = float(np.percentile(half, 99.9)) or 1.0
    return grey(half, (0.0, top)), top


def _halved(volume: Float[np.ndarray, "x y z c"]) -> Float[np.ndarray, "i j k c"]:
    """Mean over blocks of 2 × 2 × 2 voxels; the last voxel of an odd side stands for two."""
    x, y, z = (-(-n // 2) for n in volume.shape[:3])
    return np.asarray(spatial.resize(jnp.asarray(volume), (x, y, z), (0.5, 0.5, 0.5)))
