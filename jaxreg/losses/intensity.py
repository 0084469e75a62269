"""Similarities of intensities: L1, mean squared error, local normalised cross-correlation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxreg.losses.sampling import Start, every


def masked_mean(values: Float[Array, "x y z"], mask: Bool[Array, "x y z"]) -> Float[Array, ""]:
    """Mean of `values` over `mask`; 0 where the mask is empty."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def l1(
    fixed: Float[Array, "x y z 1"], moved: Float[Array, "x y z 1"], mask: Bool[Array, "x y z"]
) -> Float[Array, ""]:
    """Mean of |fixed − moved| over the mask, in [0, 1] for intensities in [0, 1]."""
    return masked_mean(jnp.abs(fixed - moved)[..., 0], mask)


def mse(
    fixed: Float[Array, "x y z 1"], moved: Float[Array, "x y z 1"], mask: Bool[Array, "x y z"]
) -> Float[Array, ""]:
    """Mean of (fixed − moved)² over the mask, in [0, 1]; for one modality only."""
    return masked_mean(jnp.square(fixed - moved)[..., 0], mask)


def lncc(
    fixed: Float[Array, "x y z 1"],
    moved: Float[Array, "x y z 1"],
    mask: Bool[Array, "x y z"],
    *,
    weight: Float[Array, "x y z"] | None = None,
    window: int,
    epsilon: float,
    stride: int = 1,
    start: Start = (0, 0, 0),
) -> Float[Array, ""]:
    """1 − mean of cc² over the mask, in [0, 1]; 0 where every window is linearly related.

    Squared, it needs no common contrast; `squared_correlation` says what ε and `weight` do. A voxel
    of the mask has cc² times its own weight: where one image shows no brain, nothing is alike. The
    windows are those of every `stride`-th voxel from `start` on.
    """
    weight = jnp.ones(mask.shape, fixed.dtype) if weight is None else weight
    squared = squared_correlation(
        fixed, moved, weight=weight, window=window, epsilon=epsilon, stride=stride, start=start
    )
    return 1 - masked_mean(
        every(weight, stride, start=start) * squared, every(mask, stride, start=start)
    )


def squared_correlation(
    fixed: Float[Array, "x y z 1"],
    moved: Float[Array, "x y z 1"],
    *,
    weight: Float[Array, "x y z"],
    window: int,
    epsilon: float,
    stride: int = 1,
    start: Start = (0, 0, 0),
) -> Float[Array, "u v w"]:
    """cc² = cov²/(var_f · var_m + ε) in a cube of `window` voxels around each voxel, in [0, 1].

    The cube is cut at the border of the grid, and each of its voxels counts by `weight` in [0, 1]:
    with 0 in the background, the edge of the brain is no structure. ε stands against the noise of
    flat windows; VoxelMorph puts it on window sums, here it is on means of intensities in [0, 1].
    The cubes are those around every `stride`-th voxel from `start` on.
    """
    f, m = fixed[..., 0] - 0.5, moved[..., 0] - 0.5  # centred: the variances lose fewer digits
    moments = jnp.stack([jnp.ones_like(f), f, m, f * f, m * m, f * m], axis=-1)
    means = box_mean(moments * weight[..., None], window, stride=stride, start=start)
    total, *moments = jnp.moveaxis(means, -1, 0)
    mean_f, mean_m, ff, mm, fm = (x / jnp.maximum(total, 1e-3) for x in moments)
    covariance = fm - mean_f * mean_m
    variance_f = jnp.maximum(ff - mean_f * mean_f, 0.0)
    variance_m = jnp.maximum(mm - mean_m * mean_m, 0.0)
    return covariance**2 / (variance_f * variance_m + epsilon)


def box_mean(
    x: Float[Array, "x y z c"], window: int, *, stride: int = 1, start: Start = (0, 0, 0)
) -> Float[Array, "u v w c"]:
    """Mean over the cube of `window` voxels (odd) around voxels, over what lies in the grid.

    These are every `stride`-th voxel from `start` on: with a stride of 2 a quarter of the work.
    """
    for axis in range(3):
        band = jnp.asarray(_band(x.shape[axis], window), x.dtype)
        if stride > 1:
            n = x.shape[axis]
            window_of_rows = ((-(-(n - stride + 1) // stride) - 1) * stride + 1, n)
            band = jax.lax.dynamic_slice(band, (start[axis], 0), window_of_rows)[::stride]
        x = jnp.moveaxis(jnp.tensordot(band, x, axes=(1, axis)), 0, axis)
    return x


@functools.cache
def _band(n: int, window: int) -> np.ndarray:
    """Matrix [n, n] whose row i averages the voxels within `window // 2` of i."""
    near = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :]) <= window // 2
    return near / near.sum(axis=1, keepdims=True)
