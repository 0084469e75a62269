"""Random voxels inside a mask, for similarities that look at a sample of the image."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


def draw_voxels(
    key: PRNGKeyArray, mask: Bool[Array, "x y z"], count: int
) -> Int[Array, "{count} 3"]:
    """`count` voxels drawn uniformly, with replacement, from the mask.

    An empty mask gives voxels of the whole grid; their weight is the caller's business.
    """
    inside = jnp.cumsum(jnp.ravel(mask | ~jnp.any(mask)), dtype=jnp.int32)
    rank = jax.random.randint(key, (count,), 1, inside[-1] + 1)
    flat = jnp.searchsorted(inside, rank)
    return jnp.stack(jnp.unravel_index(flat, mask.shape), axis=-1)


def take(volume: Float[Array, "x y z c"], voxels: Int[Array, "n 3"]) -> Float[Array, "n c"]:
    """Values of `volume` at integer voxels, which lie inside it."""
    return volume.at[voxels[:, 0], voxels[:, 1], voxels[:, 2]].get(mode="promise_in_bounds")
