"""Linear sampling at points less than a voxel away, without gathering.

Where no component of a displacement exceeds one voxel, a linear sample of each voxel is a sum over
its 27 neighbours: whole volumes, shifted and weighed. A CPU does that with its vector units, and
the adjoint needs no scatter. Volumes and displacements are `[*batch, c, x, y, z]` here, so that
shifted volumes are contiguous.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_OFFSETS = tuple(itertools.product((-1, 0, 1), repeat=3))
_AXES = (-3, -2, -1)


def sample_near(
    volume: Float[Array, "*b c x y z"], displacement: Float[Array, "*b 3 x y z"]
) -> Float[Array, "*b c x y z"]:
    """volume(x + u(x)), edge-clamped, for |u| ≤ 1 voxel in each component."""
    shifted = _shifts(volume)
    weights = _weights(displacement)
    total = jnp.zeros_like(volume)
    for offset in _OFFSETS:
        total = total + _product(weights, offset) * shifted(offset)
    return total


def near_slopes(
    volume: Float[Array, "*b c x y z"],
    displacement: Float[Array, "*b 3 x y z"],
    cotangent: Float[Array, "*b c x y z"],
) -> Float[Array, "*b 3 x y z"]:
    """The cotangent times the derivative of `sample_near` by the displacement."""
    shifted = _shifts(volume)
    weights, slopes = _weights(displacement), _slopes(displacement)
    total = [jnp.zeros(displacement.shape[:-4] + displacement.shape[-3:], volume.dtype)] * 3
    for offset in _OFFSETS:
        product = shifted(offset) * cotangent
        value = sum(product[..., c, :, :, :] for c in range(product.shape[-4]))
        for axis in range(3):
            factors = [slopes[a] if a == axis else weights[a] for a in range(3)]
            total[axis] = total[axis] + _product(factors, offset)[..., 0, :, :, :] * value
    return jnp.stack(total, axis=-4)


def near_adjoint(
    displacement: Float[Array, "*b 3 x y z"], cotangent: Float[Array, "*b c x y z"]
) -> Float[Array, "*b c x y z"]:
    """The cotangent times the derivative of `sample_near` by the volume.

    Each voxel collects what the voxels around it took from it. Beyond the border lies the border
    itself, so what was taken from there is added to it.
    """
    moved, shared = (
        [_shifts(x[..., k, :, :, :], margin=2, mode="constant") for k in range(x.shape[-4])]
        for x in (displacement, cotangent)
    )
    totals = [jnp.zeros((), cotangent.dtype)] * len(shared)
    for offset in _OFFSETS:
        back = tuple(-o for o in offset)
        weight = _product([_hats(part(back)) for part in moved], offset)
        totals = [t + weight * part(back) for t, part in zip(totals, shared, strict=True)]
    total = jax.lax.optimization_barrier(jnp.stack(totals, axis=-4))
    for axis in _AXES:
        total = jax.lax.optimization_barrier(_added_to_border(total, axis))
    return total


def _shifts(x, margin: int = 1, mode: str = "edge"):
    """The function offset → x at voxels that lie `offset` away, on a grid wider by margin − 1.

    The barriers here and in `near_adjoint` finish a volume first: within each of the 27 terms XLA
    would compute it anew, at several times the time.
    """
    lead = [(0, 0)] * (x.ndim - 3)
    padded = jax.lax.optimization_barrier(jnp.pad(x, [*lead, *[(margin, margin)] * 3], mode=mode))
    wider = margin - 1
    sizes = [n + 2 * wider for n in x.shape[-3:]]

    def shifted(offset):
        low = [1 + o for o in offset]
        within = [slice(start, start + size) for start, size in zip(low, sizes, strict=True)]
        return padded[(..., *within)]

    return shifted


def _weights(displacement):
    """Per axis the weights of the voxel below, of itself and of the one above, `[*b 1 x y z]`."""
    return [_hats(displacement[..., a : a + 1, :, :, :]) for a in range(3)]


def _hats(component):
    return jnp.maximum(-component, 0), 1 - jnp.abs(component), jnp.maximum(component, 0)


def _slopes(displacement):
    """The derivatives of `_weights`; at 0 those of a step upward, as `spatial.sample` has them."""
    parts = [displacement[..., a : a + 1, :, :, :] < 0 for a in range(3)]
    return [
        (jnp.where(down, -1.0, 0.0), jnp.where(down, 1.0, -1.0), jnp.where(down, 0.0, 1.0))
        for down in parts
    ]


def _product(factors, offset):
    x, y, z = (factors[a][o + 1] for a, o in enumerate(offset))
    return x * y * z


def _added_to_border(x, axis: int):
    """Without the first and last layer along an axis, which are added to their neighbours."""
    n = x.shape[axis]
    first, last = (jax.lax.slice_in_dim(x, k, k + 1, axis=axis) for k in (0, n - 1))
    if n == 3:
        return jax.lax.slice_in_dim(x, 1, 2, axis=axis) + first + last
    low, high = (jax.lax.slice_in_dim(x, k, k + 1, axis=axis) for k in (1, n - 2))
    inner = jax.lax.slice_in_dim(x, 2, n - 2, axis=axis)
    return jnp.concatenate([low + first, inner, high + last], axis=axis)
