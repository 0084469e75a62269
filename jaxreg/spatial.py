"""The sampling convention of the whole package, on one sample `[x, y, z, c]`.

Points are voxel-centre indices 0 … n−1, clamped at the edge. A displacement `u` is in voxels of the
grid that it lives on, component a along array axis a, and pulls back: moved(x) = moving(x + u(x)).
When a grid is refined by a factor f, voxel j of the fine grid lies at (j + 0.5)/f − 0.5 of the
coarse one, and displacements are multiplied by f: the half-resolution voxel i covers the voxels
2i and 2i + 1, its centre is 2i + 0.5.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxreg import stencil
from jaxreg.geometry.resampling import linear_weights


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

    def values(_, half):
        points = jnp.stack(half, axis=-1)
        totals = [jnp.zeros(points.shape[0], volume.dtype)] * len(channels)
        for index, factors, _sign in corners(volume.shape[:3], points):
            weight = functools.reduce(jnp.multiply, factors)
            totals = [t + weight * _at(c, index) for t, c in zip(totals, channels, strict=True)]
        return None, totals

    halves = jax.lax.scan(values, None, _parts_in_halves(points))[1]
    return _joined(halves, points.shape[:-1])


def _sample_linear_forward(volume, points):
    return _sample_linear(volume, points), (volume, points)


def _sample_linear_backward(residuals, cotangent):
    volume, points = residuals
    d_points = _slopes(volume, points, cotangent)
    last = jnp.broadcast_to(jnp.asarray(volume.shape[:3], points.dtype) - 1, points.shape)
    d_points = jnp.where((points >= 0) & (points <= last), d_points, 0)
    return _splat(volume.shape[:3], points, cotangent), d_points


_sample_linear.defvjp(_sample_linear_forward, _sample_linear_backward)


def _slopes(volume, points, cotangent):
    """The cotangent times the derivative of a linear sample by its point, `[*p, 3]`.

    Each number goes through the loop as an array of its own. Joined within it, XLA's CPU compiler
    would compute them voxel by voxel, at three times the time.
    """
    channels = _flat_channels(volume)

    def slopes(_, half):
        coordinates, cotangents = half
        points, total = jnp.stack(coordinates, axis=-1), []
        for axis in range(3):
            by_channel = [jnp.zeros(points.shape[0], points.dtype)] * len(channels)
            for index, weights, signs in corners(volume.shape[:3], points):
                factors = [signs[a] if a == axis else w for a, w in enumerate(weights)]
                weight = functools.reduce(jnp.multiply, factors)
                by_channel = [
                    t + weight * _at(c, index) for t, c in zip(by_channel, channels, strict=True)
                ]
            total.append(sum(t * c for t, c in zip(by_channel, cotangents, strict=True)))
        return None, total

    parts = _parts_in_halves(points), _parts_in_halves(cotangent)
    return _joined(jax.lax.scan(slopes, None, parts)[1], points.shape[:-1])


def _splat(shape, points, values):
    """A volume `[*shape, c]` with every point's values shared among its eight corners.

    The adjoint of sampling, as one scatter of a 2×2×2 block a point. The points come in two halves
    that a loop takes in turn: so XLA's CPU compiler finishes `values` first, where it would compute
    them anew for every corner, at twice the time.
    """
    layout = jax.lax.ScatterDimensionNumbers((1, 2, 3), (), (0, 1, 2))
    padded = tuple(max(n, 2) for n in shape)  # an axis of one voxel: the second has weight 0

    def add(volumes, half):
        points, values = half
        low, fraction = _cells(shape, points)
        wx, wy, wz = (jnp.stack([1 - f, f], axis=-1) for f in fraction)
        weights = wx[:, :, None, None] * wy[:, None, :, None] * wz[:, None, None, :]
        index = jnp.stack(low, axis=-1)
        added = [
            jax.lax.scatter_add(
                volume,
                index,
                weights * values[:, k, None, None, None],
                layout,
                mode="promise_in_bounds",
            )
            for k, volume in enumerate(volumes)
        ]
        return added, None

    halves = jax.tree.map(_in_halves, (points, values))
    start = [jnp.zeros(padded, values.dtype)] * values.shape[-1]
    volumes, _ = jax.lax.scan(add, start, halves)
    return jnp.stack(volumes, axis=-1)[: shape[0], : shape[1], : shape[2]]


def _in_halves(x):
    """`[*p, c]` as `[2, n, c]`, an odd number filled up with zeros."""
    x = x.reshape(-1, x.shape[-1])
    return jnp.pad(x, ((0, x.shape[0] % 2), (0, 0))).reshape(2, -1, x.shape[-1])


def _parts_in_halves(x):
    """The components of `[*p, c]` in halves, `c` arrays of `[2, n]`."""
    halves = _in_halves(x)
    return [halves[..., k] for k in range(x.shape[-1])]


def _joined(halves, shape):
    """Of `c` arrays in halves, the first ones of `shape` as `[*shape, c]`."""
    count = int(np.prod(shape))
    return jnp.stack([h.reshape(-1)[:count].reshape(shape) for h in halves], axis=-1)


def _cells(shape, points):
    """Per axis, the voxel below each point (never the last) and the point's distance from it."""
    low, fraction = [], []
    for axis, n in enumerate(shape):
        at = jnp.clip(points[..., axis], 0, n - 1)
        below = jnp.clip(jnp.floor(at), 0, max(n - 2, 0))
        fraction.append(at - below)
        low.append(below.astype(jnp.int32))
    return low, fraction


def corners(
    shape: tuple[int, ...], points: Float[Array, "*p 3"]
) -> Iterator[tuple[Int[Array, "*p"], list[Float[Array, "*p"]], list[int]]]:
    """The eight voxels around each point: flat index, weight per axis, and its sign per axis.

    On a grid of `shape`; the product of the three weights is the voxel's share in a linear sample
    at the point, the sign that of the weight's derivative by the point.
    """
    low, fraction = _cells(shape, points)
    high = [jnp.minimum(below + 1, n - 1) for below, n in zip(low, shape, strict=True)]
    strides = (shape[1] * shape[2], shape[2], 1)
    for corner in np.ndindex(2, 2, 2):
        x, y, z = ((high if c else low)[a] * strides[a] for a, c in enumerate(corner))
        weights = [fraction[a] if c else 1 - fraction[a] for a, c in enumerate(corner)]
        yield x + y + z, weights, [1 if c else -1 for c in corner]


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
        return displacement + _moved(displacement, displacement), None

    # A scan, not a loop: unrolled, XLA's CPU fusion recomputes each squaring inside the next.
    start = jnp.moveaxis(velocity, -1, -4) / 2**squarings
    return jnp.moveaxis(jax.lax.scan(square, start, length=squarings)[0], -4, -1)


@jax.custom_vjp
def _moved(volume, displacement):
    """volume(x + u(x)) on one grid, `[c, x, y, z]`: by shifted volumes where no |u| exceeds 1."""
    return _moved_value(volume, displacement)


def _moved_forward(volume, displacement):
    return _moved_value(volume, displacement), (volume, displacement)


def _moved_backward(residuals, cotangent):
    return _moved_cotangents(*residuals, cotangent)


_moved.defvjp(_moved_forward, _moved_backward)


def _near_or_far(near, far):
    """A function of volumes `[*b, k, x, y, z]`, the second one a displacement.

    `near` does it where the displacement is small in the whole batch, else `far`. Under vmap the
    batch becomes a further axis, so there remains one choice; a plain condition would compute both.
    """

    @jax.custom_batching.custom_vmap
    def chosen(*volumes):
        few = volumes[1].ndim - 4
        everywhere = functools.reduce(lambda f, _: jax.vmap(f), range(few), far)
        return jax.lax.cond(jnp.all(jnp.abs(volumes[1]) <= 1), near, everywhere, *volumes)

    @chosen.def_vmap
    def batched(size, is_batched, *volumes):
        full = [
            x if known else jnp.broadcast_to(x, (size, *x.shape))
            for x, known in zip(volumes, is_batched, strict=True)
        ]
        out = chosen(*full)
        return out, jax.tree.map(lambda _: True, out)

    return chosen


def _far_value(volume, displacement):
    return jnp.moveaxis(
        warp(jnp.moveaxis(volume, -4, -1), jnp.moveaxis(displacement, -4, -1)), -1, -4
    )


def _far_cotangents(volume, displacement, cotangent):
    return jax.vjp(_far_value, volume, displacement)[1](cotangent)


def _near_cotangents(volume, displacement, cotangent):
    by_volume = stencil.near_adjoint(displacement, cotangent)
    return by_volume, stencil.near_slopes(volume, displacement, cotangent)


_moved_value = _near_or_far(stencil.sample_near, _far_value)
_moved_cotangents = _near_or_far(_near_cotangents, _far_cotangents)


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
    and does not smooth: images are coarsened by `jaxreg.geometry.resampling.resample`.
    """
    for axis in range(3):
        if factor[axis] == 1 and shape[axis] == volume.shape[axis]:
            continue
        matrix = linear_weights(volume.shape[axis], shape[axis], factor[axis])
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


def displacement_of(
    velocity: Float[Array, "u v w 3"], shape: tuple[int, ...], *, squarings: int
) -> Float[Array, "x y z 3"]:
    """Displacement of exp(v) on the full grid, in its voxels; -v gives the inverse."""
    return resize_displacement(exponentiate(velocity, squarings=squarings), shape, (2.0,) * 3)


def moved_image(
    moving: Float[Array, "x y z 1"], velocity: Float[Array, "u v w 3"], *, squarings: int
) -> Float[Array, "x y z 1"]:
    """A moving image as exp(v) moves it."""
    x, y, z = moving.shape[:3]
    return warp(moving, displacement_of(velocity, (x, y, z), squarings=squarings))


def dilate(mask: Bool[Array, "x y z"], radius: int) -> Bool[Array, "x y z"]:
    """Voxels with one of `mask` at most `radius` voxels off in every axis."""
    for axis in range(3):
        window = [2 * radius + 1 if a == axis else 1 for a in range(3)]
        mask = jax.lax.reduce_window(mask, False, jax.lax.bitwise_or, window, (1,) * 3, "SAME")
    return mask
