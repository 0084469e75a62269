"""Mutual information of intensities by a Parzen window (Wells et al., MedIA 1996), global or local.

Memory does not grow with the number of voxels: the joint histogram is a sum over chunks, whose
Parzen weights are computed again for the gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxreg.losses.sampling import draw_voxels, take

SIGMA_BINS = 0.5
"""Width of the Parzen window, bins."""
_CHUNK = 16384
"""Voxels whose Parzen weights exist at one time: with 32 bins 2 MB of them an image, in cache."""


def mutual_information(
    fixed: Float[Array, " n"],
    moved: Float[Array, " n"],
    weight: Float[Array, " n"],
    *,
    bins: int,
    sigma: float = SIGMA_BINS,
) -> Float[Array, ""]:
    """MI of paired intensities in [0, 1], in nats: 0 for independent ones, at most log(bins).

    The joint density is Σₙ wₙ K(fₙ − aᵢ) K(mₙ − aⱼ), normalised to 1, with bin centres aᵢ from 0
    to 1 and K a Gaussian of `sigma` bin widths, normalised over the bins for each voxel, so that
    intensities at the ends of the range keep their whole weight.
    """
    joint = _joint(fixed, moved, weight, bins, sigma) / jnp.maximum(jnp.sum(weight), 1e-6)
    independent = jnp.sum(joint, axis=1, keepdims=True) * jnp.sum(joint, axis=0, keepdims=True)
    return jnp.sum(joint * (_log(joint) - _log(independent)))


def global_mi(
    key: PRNGKeyArray,
    fixed: Float[Array, "x y z 1"],
    moved: Float[Array, "x y z 1"],
    mask: Bool[Array, "x y z"],
    *,
    samples: int,
    bins: int,
    sigma: float = SIGMA_BINS,
) -> Float[Array, ""]:
    """−MI (nats) over `samples` voxels drawn inside the mask, or over all of it where it is 0.

    Lower is more similar; range [−log(bins), 0]. An empty mask gives 0.
    """
    f, m, weight = fixed.reshape(-1), moved.reshape(-1), mask.reshape(-1).astype(fixed.dtype)
    if samples:
        voxels = draw_voxels(key, mask, samples)
        f, m = take(fixed, voxels)[:, 0], take(moved, voxels)[:, 0]
        weight = jnp.broadcast_to(jnp.any(mask).astype(f.dtype), f.shape)
    return -mutual_information(f, m, weight, bins=bins, sigma=sigma)


def local_mi(
    key: PRNGKeyArray,
    fixed: Float[Array, "x y z 1"],
    moved: Float[Array, "x y z 1"],
    mask: Bool[Array, "x y z"],
    *,
    patch: int,
    bins: int,
    sigma: float = SIGMA_BINS,
) -> Float[Array, ""]:
    """−MI (nats) averaged over non-overlapping cubes of `patch` voxels; range [−log(bins), 0].

    The cubes tile the grid from an origin drawn anew by each call (Guo, MIT 2019; TransMorph), and
    those at the border reach over it. A cube's MI is over its voxels inside the mask, and it weighs
    by their number, so each voxel of the mask weighs the same and cubes without any do not count.
    An empty mask gives 0. The MI of few voxels is biased upwards, by about (occupied bins − 1)²/2n
    for n of them: values compare between calls with the same `patch` and `bins` only.
    """
    origin = jax.random.randint(key, (3,), 0, patch)
    volumes = (fixed[..., 0], moved[..., 0], mask.astype(fixed.dtype))
    patches = tuple(_patches(volume, origin, patch) for volume in volumes)

    @jax.checkpoint
    def mi(values):
        return mutual_information(*values, bins=bins, sigma=sigma)

    values = jax.lax.map(mi, patches, batch_size=max(1, _CHUNK // patch**3))
    weight = jnp.sum(patches[2], axis=1)
    return -jnp.sum(weight * values) / jnp.maximum(jnp.sum(weight), 1)


def _patches(volume, origin, patch):
    """The cubes of `patch` voxels that tile [x, y, z] and zeros around it, [cubes, patch³].

    `origin`, 0 … `patch` − 1 along each axis, is the place of the first voxel in the first cube.
    """
    counts = [-(-(n + patch - 1) // patch) for n in volume.shape]
    padded = jnp.zeros([patch * c for c in counts], volume.dtype)
    padded = jax.lax.dynamic_update_slice(padded, volume, origin)
    x, y, z = counts
    cubes = padded.reshape(x, patch, y, patch, z, patch).transpose(0, 2, 4, 1, 3, 5)
    return cubes.reshape(x * y * z, patch**3)


def _joint(fixed, moved, weight, bins, sigma):
    """Σₙ wₙ K(fₙ − aᵢ) K(mₙ − aⱼ), [bins, bins], chunk after chunk where they are many."""

    def add(total, chunk):
        f, m, w = chunk
        rows = _parzen(m, bins, sigma) * w[:, None]
        return total + _parzen(f, bins, sigma).T @ rows, None

    empty = jnp.zeros((bins, bins), fixed.dtype)
    n = len(fixed)
    if n <= _CHUNK:
        return add(empty, (fixed, moved, weight))[0]
    padding = (0, -n % _CHUNK)  # of weight 0
    chunks = tuple(jnp.pad(x, padding).reshape(-1, _CHUNK) for x in (fixed, moved, weight))
    return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), empty, chunks)[0]


def _parzen(values, bins, sigma):
    """Each value's weights on the bins, [n, bins], rows summing to 1."""
    distance = values[:, None] * (bins - 1) - jnp.arange(bins, dtype=values.dtype)[None]
    return jax.nn.softmax(-0.5 * jnp.square(distance / sigma), axis=1)


def _log(p):
    """Log p with a floor far below one voxel's weight: empty bins contribute 0, not NaN."""
    return jnp.log(jnp.maximum(p, 1e-12))
