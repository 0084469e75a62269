"""Volumes and masks on other grids: area means, linear and nearest neighbours, block means."""

import functools
from typing import Any

import numpy as np
import scipy  # ndimage is loaded when it is used
from jaxtyping import Bool, Float, Float32, Int, Shaped

from jaxreg.geometry.grid import Grid, Volume, coarser_grid, grid_of
from jaxreg.geometry.itk_sampling import sample_affine


def resample(volume: Volume, spacing_mm: float, *, labels: bool = False) -> Volume:
    """A volume on the grid of `coarser_grid`: area mean (labels and masks: nearest neighbour).

    Where the new grid is finer, interpolation is linear.
    """
    shape, affine = coarser_grid(volume, spacing_mm)
    factor = np.asarray(volume.spacing_mm) / spacing_mm
    array = volume.array
    for axis in range(3):
        n, n_out, f = array.shape[axis], shape[axis], factor[axis]
        if labels:
            nearest = np.floor((np.arange(n_out) + 0.5) / f).astype(int)
            array = np.take(array, np.clip(nearest, 0, n - 1), axis=axis)
        else:
            weights = _resampling_weights(n, n_out, f)
            array = np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)
    return Volume(np.ascontiguousarray(array, volume.array.dtype), affine)


@functools.cache
def linear_weights(n: int, n_out: int, factor: float) -> Float[np.ndarray, "o n"]:
    """Matrix [n_out, n] of linear interpolation at (j + 0.5)/factor − 0.5, edge-clamped."""
    at = np.clip((np.arange(n_out) + 0.5) / factor - 0.5, 0, n - 1)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(n)[None, :]))


def _resampling_weights(n: int, n_out: int, factor: float) -> np.ndarray:
    """Matrix [n_out, n], rows sum to 1: overlap of intervals (coarser) or linear (finer)."""
    if factor >= 1:
        return linear_weights(n, n_out, factor)
    start = np.arange(n_out)[:, None] / factor
    voxel = np.arange(n)[None, :]
    overlap = np.minimum(start + 1 / factor, voxel + 1) - np.maximum(start, voxel)
    overlap = np.maximum(overlap, 0)
    return overlap / overlap.sum(axis=1, keepdims=True)


def block_mean(array: Float[np.ndarray, "x y z"], factor: int) -> Float[np.ndarray, "i j k"]:
    """Mean over blocks of factor³ voxels; the shape must be a multiple of `factor`."""
    for axis in range(3):
        before = (slice(None),) * axis
        parts = [array[(*before, slice(n, None, factor))] for n in range(factor)]
        array = functools.reduce(np.add, parts)
    return array / factor**3


def block_mode(labels: Int[np.ndarray, "x y z"], factor: int) -> Int[np.ndarray, "i j k"]:
    """The most frequent label of each block of factor³ voxels."""
    i, j, k = (n // factor for n in labels.shape)
    blocks = labels.reshape(i, factor, j, factor, k, factor).transpose(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(i, j, k, factor**3)
    counts = [np.sum(blocks == blocks[..., n : n + 1], axis=-1) for n in range(factor**3)]
    winner = np.argmax(np.stack(counts, axis=-1), axis=-1)
    return np.take_along_axis(blocks, winner[..., None], axis=-1)[..., 0]


def resample_masked(
    image: Volume,
    mask: Bool[np.ndarray, "x y z"],
    to_image: Float[np.ndarray, "4 4"],
    grid: Grid,
) -> tuple[Float32[np.ndarray, "i j k"], Bool[np.ndarray, "i j k"]]:
    """An image's values on a grid, and where more than half of a voxel lies in its mask.

    Linear at the points of a grid as fine as the image, then the mean over each voxel: of the
    points inside the mask alone, so that nothing outside shines into the rim.
    """
    fine = _fineness(image, to_image, grid)
    weight = _sample(mask.astype(np.float32), image.affine, to_image, grid, fine, order=1)
    inside = np.where(mask, image.array, 0).astype(np.float32)
    values = _sample(inside, image.affine, to_image, grid, fine, order=1)
    weight, values = block_mean(weight, fine), block_mean(values, fine)
    return values / np.maximum(weight, 1e-6), weight > 0.5


def resample_any(
    mask: Bool[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    to_image: Float[np.ndarray, "4 4"],
    grid: Grid,
) -> Bool[np.ndarray, "i j k"]:
    """Voxels of a grid that see any of a mask with an affine, such as what is to be ignored."""
    share, everywhere = Volume(mask.astype(np.float32), affine), np.ones(mask.shape, bool)
    return resample_masked(share, everywhere, to_image, grid)[0] > 0


def resample_labels(
    labels: Volume, to_image: Float[np.ndarray, "4 4"], grid: Grid
) -> Int[np.ndarray, "i j k"]:
    """Labels on a grid: nearest at the points of a grid as fine, then the most frequent one."""
    fine = _fineness(labels, to_image, grid)
    return block_mode(_sample(labels.array, labels.affine, to_image, grid, fine, order=0), fine)


def mask_like(
    mask: Volume, image: Volume, to_mask: Float[np.ndarray, "4 4"]
) -> Bool[np.ndarray, "x y z"]:
    """A mask on an image's grid, nearest neighbour; `to_mask` takes image mm to mask mm."""
    grid = grid_of(image)
    to_voxels = np.linalg.inv(mask.affine) @ to_mask @ image.affine
    if mask.array.shape == grid.shape and np.allclose(to_voxels, np.eye(4), atol=1e-3):
        return mask.array != 0  # as sampling would give, in no time
    inside = (mask.array != 0).astype(np.uint8)
    return _sample(inside, mask.affine, to_mask, grid, 1, order=0) != 0


def _fineness(image: Volume, to_image: np.ndarray, grid: Grid) -> int:
    """How many points a voxel of the grid needs along each axis to see every voxel of the image."""
    to_voxels = (np.linalg.inv(image.affine) @ to_image @ grid.affine)[:3, :3]
    longest = float(np.linalg.norm(to_voxels, axis=0).max())
    return max(1, int(np.ceil(longest - 0.25)))


def _sample(
    array: Shaped[np.ndarray, "x y z"],
    affine: np.ndarray,
    to_image: np.ndarray,
    grid: Grid,
    fine: int,
    *,
    order: int,
) -> Shaped[np.ndarray, "i j k"]:
    """Values at the points of a grid `fine` times finer, 0 outside the field of view."""
    to_grid = np.diag([1 / fine, 1 / fine, 1 / fine, 1.0])
    to_grid[:3, 3] = 0.5 / fine - 0.5
    to_voxels: Any = np.linalg.inv(affine) @ to_image @ grid.affine @ to_grid
    shape = tuple(n * fine for n in grid.shape)
    if order == 1:
        return sample_affine(array, to_voxels, shape)
    out = np.empty(shape, array.dtype)
    scipy.ndimage.affine_transform(
        array,
        to_voxels[:3, :3],
        to_voxels[:3, 3],
        output_shape=shape,
        output=out,
        order=0,
        mode="grid-constant",
    )
    return out
