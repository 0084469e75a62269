"""Overlap of label maps as a loss, for training subjects whose labels are known."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from jaxreg.losses.sampling import Start, every
from jaxreg.spatial import corners, identity_grid

_VALUES = 256


def soft_dice(
    fixed: UInt8[Array, "x y z"],
    moving: UInt8[Array, "x y z"],
    displacement: Float[Array, "x y z 3"],
    *,
    counts: Bool[Array, "x y z"] | None = None,
    start: Start = (0, 0, 0),
    stride: int = 2,
) -> Float[Array, ""]:
    """Mean Dice of the moving labels, warped linearly, with the fixed ones, in [0, 1].

    The mean is over the labels above 0 that both maps have, and the sums over the voxels of the
    fixed grid where `counts` is true (all without it). It is 0 if no label is shared. A moved voxel
    belongs to each label in part, by the weights of its eight corners: what a linear warp of one
    map of ones a label would give (Balakrishnan et al., VoxelMorph, TMI 2019, eq. 9), without
    making any. The sums take every `stride`-th voxel from `start` (below `stride`) on.
    """
    points = every(identity_grid(fixed.shape) + displacement, stride, start=start)
    fixed_labels, flat = every(fixed, stride, start=start), moving.reshape(-1)
    seen = jnp.ones(fixed_labels.shape)
    if counts is not None:
        seen = every(counts, stride, start=start).astype(jnp.float32)
    agreement, moved_sizes = jnp.zeros(fixed_labels.shape), jnp.zeros(_VALUES)
    for index, (wx, wy, wz), _ in corners(moving.shape, points):
        labels, weight = flat.at[index].get(mode="promise_in_bounds"), wx * wy * wz * seen
        agreement = agreement + jnp.where(labels == fixed_labels, weight, 0)
        moved_sizes = moved_sizes + _sum_by_label(weight, labels)
    common = _sum_by_label(agreement, fixed_labels)
    fixed_sizes = _sum_by_label(seen, fixed_labels)
    both = (fixed_sizes > 0) & (_sum_by_label(jnp.ones(moving.shape), moving) > 0)
    both = both.at[0].set(False)
    dice = 2 * common / jnp.maximum(fixed_sizes + moved_sizes, 1e-6)
    return jnp.sum(jnp.where(both, dice, 0)) / jnp.maximum(jnp.sum(both), 1)


def _sum_by_label(values, labels):
    return jnp.zeros(_VALUES).at[labels.reshape(-1)].add(values.reshape(-1))
