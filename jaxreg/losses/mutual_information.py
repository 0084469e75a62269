"""Mutual information of intensities by a Parzen window (Wells et al., MedIA 1996)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxreg.losses.locations import draw_voxels, take


def mutual_information(
    fixed: Float[Array, " n"],
    moved: Float[Array, " n"],
    weight: Float[Array, " n"],
    *,
    bins: int = 32,
    sigma: float = 0.5,
) -> Float[Array, ""]:
    """MI of paired intensities in [0, 1], in nats: 0 for independent ones, at most log(bins).

    The joint density is Σₙ wₙ K(fₙ − aᵢ) K(mₙ − aⱼ), normalised to 1, with bin centres aᵢ from 0
    to 1 and K a Gaussian of `sigma` bin widths, normalised over the bins for each voxel, so that
    intensities at the ends of the range keep their whole weight.
    """
    joint = _parzen(fixed, bins, sigma).T @ (_parzen(moved, bins, sigma) * weight[:, None])
    joint = joint / jnp.maximum(jnp.sum(weight), 1e-6)
    independent = jnp.sum(joint, axis=1, keepdims=True) * jnp.sum(joint, axis=0, keepdims=True)
    return jnp.sum(joint * (_log(joint) - _log(independent)))


def global_mi(
    key: PRNGKeyArray,
    fixed: Float[Array, "x y z 1"],
    moved: Float[Array, "x y z 1"],
    mask: Bool[Array, "x y z"],
    *,
    samples: int = 65536,
    bins: int = 32,
    sigma: float = 0.5,
) -> Float[Array, ""]:
    """−MI (nats) over `samples` voxels drawn inside the mask, or over all of it where it is 0.

    Lower is more similar; range [−log(bins), 0]. An empty mask gives 0.
    """
    f, m, weight = fixed.reshape(-1), moved.reshape(-1), mask.reshape(-1).astype(jnp.float32)
    if samples:
        voxels = draw_voxels(key, mask, samples)
        f, m = take(fixed, voxels)[:, 0], take(moved, voxels)[:, 0]
        weight = jnp.broadcast_to(jnp.any(mask).astype(jnp.float32), f.shape)
    return -mutual_information(f, m, weight, bins=bins, sigma=sigma)


def _parzen(values, bins, sigma):
    """Each value's weights on the bins, [n, bins], rows summing to 1."""
    distance = values[:, None] * (bins - 1) - jnp.arange(bins, dtype=values.dtype)[None]
    return jax.nn.softmax(-0.5 * jnp.square(distance / sigma), axis=1)


def _log(p):
    """Log p with a floor far below one voxel's weight: empty bins contribute 0, not NaN."""
    return jnp.log(jnp.maximum(p, 1e-12))
