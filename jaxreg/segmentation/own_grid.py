"""A found brain read on the grid of its image, or on any other in the image's space."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8

from jaxreg.data.label_codes import decode
from jaxreg.geometry.connected import largest_part
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.itk_sampling import sample_affine
from jaxreg.segmentation.brain import FoundBrain
from jaxreg.spatial import corners

_AT_ONCE = 1 << 16
"""Voxels of one call of the compiled reading: one program for all images."""


def on_own_grid(
    image: Volume, brain: FoundBrain
) -> tuple[UInt8[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """(FreeSurfer's numbers, brain mask) on the image's own grid."""
    codes, mask = codes_on(brain, Grid(image.array.shape, image.affine))
    return decode(codes), mask


def codes_on(
    brain: FoundBrain, grid: Grid
) -> tuple[UInt8[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """(codes, brain mask) at the voxels of a grid in the image's space.

    A voxel belongs to the brain where the probability of the background, read linearly between the
    template grid's voxels, is below a half; there it gets the structure of the largest probability.
    """
    assert brain.probabilities is not None
    to_template = np.linalg.inv(brain.affine) @ grid.affine
    inside = 1 - brain.probabilities[..., 0]
    box = _box(inside > 0.5, np.linalg.inv(to_template), grid.shape)
    mask = np.zeros(grid.shape, bool)
    mask[box] = largest_part(_read(inside, to_template, box) > 0.5)
    codes = np.zeros(grid.shape, np.uint8)
    codes[mask] = _structures_at(brain.probabilities, np.argwhere(mask), to_template)
    return codes, mask


def _structures_at(
    probabilities: Float32[np.ndarray, "i j k c"],
    voxels: np.ndarray,
    to_template: Float[np.ndarray, "4 4"],
) -> UInt8[np.ndarray, " n"]:
    """The code of the most probable structure at voxels of a grid."""
    turn, shift = to_template[:3, :3].astype(np.float32), to_template[:3, 3].astype(np.float32)
    points = voxels.astype(np.float32) @ turn.T + shift
    points = np.concatenate([points, np.zeros((-len(points) % _AT_ONCE, 3), np.float32)])
    everywhere = jnp.asarray(probabilities)
    found = [
        _most_probable(everywhere, jnp.asarray(points[k : k + _AT_ONCE]))
        for k in range(0, len(points), _AT_ONCE)
    ]
    return np.concatenate([np.zeros(0, np.uint8), *found])[: len(voxels)]


@jax.jit
def _most_probable(
    probabilities: Float[Array, "i j k c"], points: Float[Array, "n 3"]
) -> UInt8[Array, " n"]:
    """The code of the largest probability but the background's, read linearly at points."""
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    total = jnp.zeros((len(points), probabilities.shape[-1]))
    for index, weights, _ in corners(probabilities.shape[:3], points):
        weight = functools.reduce(jnp.multiply, weights)
        total = total + weight[:, None] * rows.at[index].get(mode="promise_in_bounds")
    return (1 + jnp.argmax(total[:, 1:], axis=-1)).astype(jnp.uint8)


def _read(
    values: Float32[np.ndarray, "i j k"],
    to_template: Float[np.ndarray, "4 4"],
    box: tuple[slice, slice, slice],
) -> Float32[np.ndarray, "x y z"]:
    """Values of the template grid, read linearly at the voxels of a box of the image; 0 beyond."""
    shift = np.eye(4)
    shift[:3, 3] = [s.start for s in box]
    return sample_affine(values, to_template @ shift, [s.stop - s.start for s in box])


def _box(
    there: np.ndarray, to_own: np.ndarray, shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    """The part of the image's grid that holds a part of the template grid."""
    spans = np.argwhere(there)
    if len(spans) == 0:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    low, high = spans.min(axis=0) - 1.0, spans.max(axis=0) + 1.0
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1)
    own = to_own[:3, :3] @ corners + to_own[:3, 3:]
    first = np.clip(np.floor(own.min(axis=1)), 0, shape).astype(int)
    last = np.clip(np.ceil(own.max(axis=1)) + 1, 0, shape).astype(int)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return x, y, z
