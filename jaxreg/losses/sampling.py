"""Some of the voxels of an image, for losses that look at a sample of it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

Start = tuple[Array | int, Array | int, Array | int]

_CORNERS = (
    (0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 1), (1, 1, 0),
)  # fmt: skip
"""The corners of a block of 2 × 2 × 2 voxels, in four pairs of opposite ones."""


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


def start_of(step: Int[Array, ""] | int) -> Start:
    """Where `every` begins in a step of an optimisation, with a stride of 2.

    Eight steps in a row see each voxel once (of an odd number along an axis, all but the last).
    Corners drawn at random see some voxels twice and some never, and a registration of few steps
    then depends on the draw (docs/experiments/refinement.md).
    """
    x, y, z = jnp.asarray(_CORNERS, jnp.int32)[step % len(_CORNERS)]
    return x, y, z


def every(
    x: Shaped[Array, "x y z *c"], stride: int, *, start: Start = (0, 0, 0)
) -> Shaped[Array, "u v w *c"]:
    """Every `stride`-th voxel along the first three axes, from `start` (below `stride`) on.

    Whatever the start there are as many: a start may be a value that jit does not know.
    """
    if stride == 1:
        return x
    counts = [-(-(n - stride + 1) // stride) for n in x.shape[:3]]
    corner = (*start, *[0] * (x.ndim - 3))
    window = [(count - 1) * stride + 1 for count in counts]
    part = jax.lax.dynamic_slice(x, corner, (*window, *x.shape[3:]))
    return part[::stride, ::stride, ::stride]
