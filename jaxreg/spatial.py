"""The sampling convention of the whole package, on one sample `[x, y, z, c]`.

Points are voxel-centre indices 0 … n−1, clamped at the edge. A displacement `u` is in voxels of the
grid that it lives on, component a along array axis a, and pulls back: moved(x) = moving(x + u(x)).
When a grid is refined by a factor f, voxel j of the fine grid lies at (j + 0.5)/f − 0.5 of the
coarse one, and displacements are multiplied by f: the half-resolution voxel i covers the voxels
2i and 2i + 1, its centre is 2i + 0.5.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped


def identity_grid(shape: tuple[int, ...]) -> Float[Array, "x y z 3"]:
    """Voxel index of every voxel: the points at which `sample` returns the volume itself."""
    axes = [jnp.arange(n, dtype=jnp.float32) for n in shape]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)


def sample(
    volume: Shaped[Array, "x y z c"], points: Float[Array, "*p 3"], *, order: int = 1
) -> Shaped[Array, "*p c"]:
    """Values of `volume` at `points` (voxels), edge-clamped; order 0 for labels, 1 for images."""
    if order == 0:
        x, y, z = (
            jnp.clip(jnp.floor(points[..., a] + 0.5).astype(jnp.int32), 0, n - 1)
            for a, n in enumerate(volume.shape[:3])
        )
        return volume.at[x, y, z].get(mode="promise_in_bounds")
    if order != 1:
        raise ValueError(f"expected order 0 (nearest) or 1 (linear), got {order}.")
    return _sample_linear(volume, points)


@jax.custom_vjp
def _sample_linear(volume, points):
    """Trilinear sampling.

    The gradient is written out: XLA's own differentiates every corner's weights and scatters one
    corner at a time, at two to three times the cost.
    """
    channels = _flat_channels(volume)
    totals = [jnp.zeros(points.shape[:-1], volume.dtype)] * len(channels)
    for index, factors, _ in _corners(volume.shape[:3], points):
        weight = functools.reduce(jnp.multiply, factors)
        totals = [t + weight * _at(c, index) for t, c in zip(totals, channels, strict=True)]
    return jnp.stack(totals, axis=-1)


def _sample_linear_forward(volume, points):
    return _sample_linear(volume, points), (volume, points)


def _sample_linear_backward(residuals, cotangent):
    volume, points = residuals
    channels = _flat_channels(volume)
    d_points = [jnp.zeros(points.shape[:-1], points.dtype)] * 3
    at_corners = []
    for index, (wx, wy, wz), (sx, sy, sz) in _corners(volume.shape[:3], points):
        value = sum(_at(c, index) * cotangent[..., k] for k, c in enumerate(channels))
        d_points = [
            total + term * value
            for total, term in zip(
                d_points, (sx * (wy * wz), sy * (wx * wz), sz * (wx * wy)), strict=True
            )
        ]
        at_corners.append((index, wx * wy * wz))
    d_points = [
        jnp.where((points[..., a] >= 0) & (points[..., a] <= n - 1), d, 0)
        for (a, n), d in zip(enumerate(volume.shape[:3]), d_points, strict=True)
    ]
    d_channels = [_add_at(c, at_corners, cotangent[..., k]) for k, c in enumerate(channels)]
    return jnp.stack(d_channels, axis=-1).reshape(volume.shape), jnp.stack(d_points, axis=-1)


def _add_at(flat, at_corners, values):
    """A volume like `flat` with weight · value added at each corner.

    The corners come in pairs along z, neighbours in memory: a scatter of two voxels a point takes
    less time than two scatters. Where z has one voxel the second lies beyond, with weight 0.
    """
    layout = jax.lax.ScatterDimensionNumbers((1,), (), (0,))
    total = jnp.zeros(flat.size + 1, flat.dtype)
    for (index, low), (_, high) in zip(at_corners[::2], at_corners[1::2], strict=True):
        pair = jnp.stack([low * values, high * values], axis=-1).reshape(-1, 2)
        total = jax.lax.scatter_add(
            total, index.reshape(-1, 1), pair, layout, mode="promise_in_bounds"
        )
    return total[:-1]


_sample_linear.defvjp(_sample_linear_forward, _sample_linear_backward)


def _corners(shape, points):
    """The eight corners around each point: flat index, weight per axis, and its sign per axis."""
    low, high, fraction = [], [], []
    for axis, n in enumerate(shape):
        at = jnp.clip(points[..., axis], 0, n - 1)
        below = jnp.clip(jnp.floor(at), 0, max(n - 2, 0))
        fraction.append(at - below)
        low.append(below.astype(jnp.int32))
        high.append(jnp.minimum(low[axis] + 1, n - 1))
    strides = (shape[1] * shape[2], shape[2], 1)
    for corner in np.ndindex(2, 2, 2):
        index = sum((high if c else low)[a] * strides[a] for a, c in enumerate(corner))
        weights = [fraction[a] if c else 1 - fraction[a] for a, c in enumerate(corner)]
        yield index, weights, [1 if c else -1 for c in corner]


def _flat_channels(volume):
    return [volume[..., c].reshape(-1) for c in range(volume.shape[-1])]


def _at(flat, index):
    return flat.at[index].get(mode="promise_in_bounds")


def warp(
    volume: Shaped[Array, "x y z c"], displacement: Float[Array, "i j k 3"], *, order: int = 1
) -> Shaped[Array, "i j k c"]:
    """moved(x) = volume(x + u(x)) on the grid of the displacement; order 0 for labels."""
    return sample(volume, identity_grid(displacement.shape[:3]) + displacement, order=order)


def compose(
    first: Float[Array, "x y z 3"], second: Float[Array, "i j k 3"]
) -> Float[Array, "x y z 3"]:
    """Displacement of x → y + second(y) with y = x + first(x), in voxels of their common grid.

    Warping by the result is warping by `second`, then by `first`: an image pulled back by
    `second` and the outcome pulled back by `first`.
    """
    return first + warp(second, first)


def exponentiate(
    velocity: Float[Array, "x y z 3"], *, squarings: int = 7
) -> Float[Array, "x y z 3"]:
    """Displacement of exp(v), the flow of a stationary velocity for unit time (voxels).

    Scaling and squaring (Arsigny et al., MICCAI 2006); exponentiate(-v) is its inverse.
    """

    def square(displacement, _):
        return compose(displacement, displacement), None

    # A scan, not a loop: unrolled, XLA's CPU fusion recomputes each squaring inside the next.
    return jax.lax.scan(square, velocity / 2**squarings, length=squarings)[0]


def jacobian_determinant(displacement: Float[Array, "x y z 3"]) -> Float[Array, "x y z"]:
    """det(I + ∇u) by central differences, one-sided at the border; ≤ 0 where the map folds.

    The displacement is in voxels, so the value holds in voxel space; on a grid of equal spacings it
    is the determinant in millimetres too.
    """
    d = [jnp.stack(jnp.gradient(displacement[..., a]), axis=-1) for a in range(3)]
    a, b, c = (row.at[..., i].add(1) for i, row in enumerate(d))
    return jnp.sum(a * jnp.cross(b, c), axis=-1)


def resize(
    volume: Float[Array, "x y z c"],
    shape: tuple[int, ...],
    factor: tuple[float, ...],
) -> Float[Array, "i j k c"]:
    """`volume` on a grid `factor` times finer along each axis, linear, of `shape` voxels.

    Output voxel j lies at (j + 0.5)/factor − 0.5, edge-clamped. A factor below 1 samples linearly
    and does not smooth: images are coarsened by `jaxreg.data.volume.resample`.
    """
    for axis in range(3):
        if factor[axis] == 1 and shape[axis] == volume.shape[axis]:
            continue
        matrix = _linear_weights(volume.shape[axis], shape[axis], factor[axis])
        volume = jnp.moveaxis(
            jnp.tensordot(jnp.asarray(matrix, volume.dtype), volume, axes=(1, axis)), 0, axis
        )
    return volume


def resize_displacement(
    displacement: Float[Array, "x y z 3"],
    shape: tuple[int, ...],
    factor: tuple[float, ...],
) -> Float[Array, "i j k 3"]:
    """The same map on a grid `factor` times finer: values are multiplied by `factor` too."""
    resized = resize(displacement, shape, factor)
    return jnp.stack([resized[..., a] * f for a, f in enumerate(factor)], axis=-1)


@functools.cache
def _linear_weights(n: int, n_out: int, factor: float) -> np.ndarray:
    """Matrix [n_out, n] of linear interpolation at (j + 0.5)/factor − 0.5, edge-clamped."""
    at = np.clip((np.arange(n_out) + 0.5) / factor - 0.5, 0, n - 1)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(n)[None, :]))
