"""The spatial map of a registration: affines and displacement fields, applied one after the other.

A chain maps points of the fixed space to the moving space (pull-back), in RAS millimetres: its
first element acts on the fixed point, the next on the result, and so on. An affine is a 4×4
matrix; a field adds the displacement interpolated at the point, and nothing outside its grid (half
a voxel beyond the outer centres), as ITK does. Coordinates are float64 throughout.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import map_coordinates, spline_filter

from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.itk_sampling import add_linear, sample_displaced, sample_field

Affine = Float[np.ndarray, "4 4"]
Chain = Sequence[np.ndarray | Field]
Points = Float[np.ndarray, "n 3"]

_CHUNK = 1 << 18
"""Points that are in work at a time: about 60 MB."""
_BLOCK = 1 << 13
"""Points whose trilinear values are found at a time: 64 kB an array."""


def map_points(chain: Chain, points: Points) -> Points:
    """Where a chain takes points of the fixed space: points of the moving space (RAS mm)."""
    for element in chain:
        if isinstance(element, Field):
            index = affine_points(np.linalg.inv(element.affine), points)
            within = inside(index, element.vectors.shape)
            points = points + np.where(within[:, None], _interpolate(element.vectors, index), 0)
        else:
            points = affine_points(element, points)
    return points


def affine_points(matrix: Affine, points: Points) -> Points:
    """Points after an affine; the result's coordinates lie axis by axis in memory.

    So do those that this module makes: with three long rows, each step is several times faster.
    """
    return (matrix[:3, :3] @ points.T + matrix[:3, 3:]).T


def voxel_indices(grid: Grid) -> Points:
    """The index of every voxel of a grid, one row each, the last axis fastest."""
    return np.indices(grid.shape).reshape(3, -1).T.astype(np.float64)


def pulled_indices(field: Field, moving: Grid) -> Points:
    """The voxel coordinates in the moving image to which a field takes each of its voxels."""
    world = affine_points(field.affine, voxel_indices(field.grid)) + field.vectors.reshape(-1, 3)
    return affine_points(np.linalg.inv(moving.affine), world)


def resample(
    volume: Volume,
    pull_back: Callable[[Points], Points],
    grid: Grid,
    *,
    order: int = 1,
    smooth_labels: bool = False,
    fill: float = 0.0,
) -> Shaped[np.ndarray, "x y z"]:
    """The values of `volume` at pull_back(x) for each voxel centre x of `grid`; `fill` outside it.

    Order 1 (linear) and 3 (cubic B-spline) give float32, order 0 (nearest neighbour, for labels)
    the volume's own type, and so do `smooth_labels`: of the eight labels around a point the one
    with the largest sum of linear weights, the smallest label of several.
    The field of view ends at the outer voxels' edges; there the outer value is continued.
    """
    found = places(volume.affine, pull_back, grid)
    return values_at(
        volume.array, found, grid.shape, order=order, smooth_labels=smooth_labels, fill=fill
    )


def resample_by(
    volume: Volume, field: Field, *, order: int = 1, smooth_labels: bool = False
) -> Shaped[np.ndarray, "x y z"]:
    """As `resample`, on the field's own grid at x + u(x): nothing is interpolated but the image."""
    to_index = np.linalg.inv(volume.affine)
    if order == 1 and not smooth_labels:
        return sample_displaced(
            volume.array, to_index @ field.affine, field.vectors, to_index[:3, :3]
        )
    found = (
        (planes, affine_points(to_index, points + field.vectors[planes].reshape(-1, 3)))
        for planes, points in _planes(field.grid)
    )
    return values_at(
        volume.array, found, field.grid.shape, order=order, smooth_labels=smooth_labels
    )


def places(
    affine: Affine, pull_back: Callable[[Points], Points], grid: Grid
) -> Iterator[tuple[slice, Points]]:
    """Where `grid` reads a volume of an affine: (a slab of its planes, voxel coordinates there).

    A list of them is good for any number of volumes, and holds 24 bytes a voxel of `grid`.
    """
    to_index = np.linalg.inv(affine)
    for planes, points in _planes(grid):
        yield planes, affine_points(to_index, pull_back(points))


def values_at(
    array: Shaped[np.ndarray, "x y z"],
    places: Iterable[tuple[slice, Points]],
    shape: tuple[int, int, int],
    *,
    order: int,
    smooth_labels: bool = False,
    fill: float = 0.0,
) -> Shaped[np.ndarray, "i j k"]:
    """An array's values at the `places` of a grid of a shape, as `resample` describes them."""
    whole = smooth_labels or order == 0
    out = np.zeros(shape, array.dtype if whole else np.float32)
    source_shape = array.shape
    if order > 1:
        array = spline_filter(array.astype(np.float64), order, mode="mirror")
    mode = "mirror" if order > 1 else "nearest"
    for planes, index in places:
        if smooth_labels:
            values = _likeliest_labels(array, index)
        elif order == 1:
            values = _linear(array[..., None], index)[0]
        else:
            values = map_coordinates(
                array, index.T, order=order, mode=mode, output=out.dtype, prefilter=False
            )
        values[~inside(index, source_shape)] = fill
        out[planes] = values.reshape(out[planes].shape)
    return out


def _likeliest_labels(labels: Shaped[np.ndarray, "x y z"], index: Points) -> np.ndarray:
    """At each index the label that linear interpolation of every label's own mask makes largest."""
    last = np.array(labels.shape) - 1
    index = np.clip(index, 0, last)
    low = np.minimum(np.floor(index), np.maximum(last - 1, 0)).astype(int)
    part = index - low
    corners, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        at = np.minimum(low + corner, last)
        corners.append(labels[tuple(at.T)])
        weights.append(np.prod(np.where(corner, part, 1 - part), axis=1))
    best, most = corners[0], np.full(len(index), -1.0)
    for label in corners:
        votes = sum(w * (other == label) for w, other in zip(weights, corners, strict=True))
        better = (votes > most + 1e-9) | ((votes > most - 1e-9) & (label < best))
        best, most = np.where(better, label, best), np.where(better, votes, most)
    return best


def compose(pull_back: Callable[[Points], Points], grid: Grid) -> Field:
    """The one displacement field on `grid` that does what `pull_back` does there (float32)."""
    vectors = np.zeros((*grid.shape, 3), np.float32)
    for planes, points in _planes(grid):
        vectors[planes] = (pull_back(points) - points).reshape(vectors[planes].shape)
    return Field(vectors, grid.affine)


def compose_chain(chain: Chain, grid: Grid) -> Field:
    """The one displacement field on `grid` that does what a chain does there (float32).

    A chain of affines and one field, as a registration has it, is one resampling of that field.
    """
    field, before, after = None, np.eye(4), np.eye(4)
    for element in chain:
        if not isinstance(element, Field):
            after = element @ after
        elif field is None:
            field, before, after = element, after, np.eye(4)
        else:
            return compose(functools.partial(map_points, chain), grid)
    if field is None:
        vectors = np.zeros((*grid.shape, 3), np.float32)
    else:
        to_voxels = np.linalg.inv(field.affine) @ before @ grid.affine
        vectors = sample_field(field.vectors @ after[:3, :3].T, to_voxels, grid.shape)
    add_linear(vectors, (after @ before - np.eye(4)) @ grid.affine)
    return Field(vectors, grid.affine)


def invert(
    chain: Chain, *, tolerance_mm: float = 1e-3, iterations: int = 40
) -> Callable[[Points], tuple[Points, Float[np.ndarray, " n"]]]:
    """A function from points of the moving space to (points of the fixed space, residual in mm).

    Affines are inverted exactly. A field is inverted at each point by a fixed-point iteration
    whose step is corrected from point to point (Broyden's method, started from the field's best
    affine), until it maps back to the point within the tolerance; the residual is the largest
    distance that remains over the chain's fields. A field is continued beyond its grid by its
    affine and its border values. Where the answer lies there, the residual is NaN.
    """
    steps: list[Callable] = []
    for element in reversed(chain):
        if isinstance(element, Field):
            steps.append(_field_inverse(element, tolerance_mm, iterations))
        else:
            steps.append(_affine_inverse(element))

    def push(points: Points) -> tuple[Points, Float[np.ndarray, " n"]]:
        residual = np.zeros(len(points))
        for step in steps:
            points, remains = step(points)
            residual = np.maximum(residual, remains)
        return points, residual

    return push


def jacobian_determinant(field: Field) -> Float[np.ndarray, "x y z"]:
    """The determinant of ∂(x + u)/∂x in physical space, float32, by central differences.

    Differences are one-sided at the border, and zero along an axis of one voxel.
    """
    axes = field.affine[:3, :3]
    determinant = np.empty(field.vectors.shape[:3], np.float32)
    n = len(determinant)
    size = max(1, _CHUNK // determinant[0].size)
    for start in range(0, n, size):
        stop = min(start + size, n)
        low, high = max(start - 1, 0), min(stop + 1, n)
        slab = np.ascontiguousarray(np.moveaxis(field.vectors[low:high], -1, 0), np.float64)
        (a, b, c), (d, e, f), (g, h, i) = (
            [_difference(u, axis)[start - low : stop - low] + axes[n, axis] for axis in range(3)]
            for n, u in enumerate(slab)
        )
        found = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
        determinant[start:stop] = found / np.linalg.det(axes)
    return determinant


def _difference(values: Float[np.ndarray, "x y z"], axis: int) -> Float[np.ndarray, "x y z"]:
    """Central differences along an axis; zero along one of a single voxel."""
    return np.gradient(values, axis=axis) if values.shape[axis] > 1 else np.zeros_like(values)


def _planes(grid: Grid) -> Iterator[tuple[slice, Points]]:
    """Slabs of whole planes across the first axis, and the RAS mm of their voxel centres."""
    x, y, z = grid.shape
    size = max(1, _CHUNK // (y * z))
    for start in range(0, x, size):
        stop = min(start + size, x)
        i, j, k = np.ogrid[start:stop, 0:y, 0:z]
        rows = [row[0] * i + (row[1] * j + (row[2] * k + row[3])) for row in grid.affine[:3]]
        yield slice(start, stop), np.stack(rows).reshape(3, -1).T


def inside(index: Points, shape: tuple[int, ...]) -> np.ndarray:
    """Whether voxel coordinates lie within the outer voxels' edges."""
    edge = 0.5 + 1e-6  # an edge that two grids share stays inside after rounding
    found = np.ones(len(index), bool)
    for axis, n in enumerate(shape[:3]):
        at = index[:, axis]
        found &= (at >= -edge) & (at <= n - 1 + edge)
    return found


def _interpolate(vectors: np.ndarray, index: Points) -> Points:
    """Trilinear values of a field at voxel coordinates, continued beyond the grid."""
    return _linear(vectors, index).T


def _linear(array: Shaped[np.ndarray, "x y z c"], index: Points) -> Float[np.ndarray, "c n"]:
    """Trilinear values of every channel at voxel coordinates, continued beyond the grid.

    As SciPy's `map_coordinates` gives them (mode nearest), but several times faster: corners and
    weights are found once for all channels, and each step runs over what the cache holds.
    """
    flat, shape = np.ascontiguousarray(array).reshape(-1), array.shape
    out = np.zeros((shape[3], len(index)))
    for start in range(0, len(index), _BLOCK):
        block = slice(start, start + _BLOCK)
        for at, weight in _corners(shape, index[block]):
            for c, values in enumerate(out[:, block]):
                values += weight * flat[c:].take(at, mode="clip")  # which checks nothing first
    return out


def _corners(shape: tuple[int, ...], index: Points) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(flat index, weight) of each of the eight voxels around points, of an array [x, y, z, c]."""
    base, shares, steps = np.zeros(len(index), np.intp), [], []
    for axis in range(3):
        n, step = shape[axis], math.prod(shape[axis + 1 :])
        at = np.minimum(np.maximum(index[:, axis], 0), n - 1)
        with np.errstate(invalid="ignore"):  # of NaN, whose value its weights make NaN
            low = np.minimum(at.astype(np.intp), max(n - 2, 0))
        base += low * step
        shares.append((1 - (at - low), at - low))
        steps.append(step if n > 1 else 0)
    for i, j in np.ndindex(2, 2):
        share = shares[0][i] * shares[1][j]
        for k in range(2):
            at = base + (i * steps[0] + j * steps[1] + k * steps[2])
            yield at, share * shares[2][k]


def _affine_inverse(matrix: Affine):
    inverted = np.linalg.inv(matrix)
    return lambda points: (affine_points(inverted, points), np.zeros(len(points)))


def _field_inverse(field: Field, tolerance_mm: float, iterations: int):
    """A function from points to (their origin under the field, residual in mm or NaN)."""
    affine, rest = _split_affine(field)
    start, to_index = np.linalg.inv(affine), np.linalg.inv(field.affine)

    def forward(points):
        return affine_points(affine, points) + _interpolate(rest, affine_points(to_index, points))

    def solve(points: Points) -> tuple[Points, np.ndarray]:
        found = affine_points(start, points)
        residual = np.empty(len(points))
        for first in range(0, len(points), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            found[chunk], residual[chunk] = _broyden(
                forward, points[chunk], found[chunk], start[:3, :3], tolerance_mm, iterations
            )
        outside = ~inside(affine_points(to_index, found), rest.shape)
        return found, np.where(outside, np.nan, residual)

    return solve


def nearest_affine(field: Field) -> Affine:
    """The affine nearest to x + u(x) on a field's grid, by least squares over some of its points.

    The identity where that is not invertible.
    """
    some = [np.arange(0, n, max(1, n // 24)) for n in field.vectors.shape[:3]]
    index = np.stack(np.meshgrid(*some, indexing="ij", copy=True), axis=-1).astype(np.float64)
    points = affine_points(field.affine, index.reshape(-1, 3))
    ones = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    target = points + field.vectors[np.ix_(*some)].reshape(-1, 3)
    affine = np.eye(4)
    affine[:3] = np.linalg.lstsq(ones, target, rcond=None)[0].T
    if np.linalg.det(affine[:3, :3]) < 1e-3 or min(field.vectors.shape[:3]) < 2:
        return np.eye(4)
    return affine


def _split_affine(field: Field) -> tuple[Affine, Float[np.ndarray, "x y z 3"]]:
    """(the affine nearest to x + u(x) on the grid, what remains to be added to it, float32)."""
    affine = nearest_affine(field)
    rest = np.empty(field.vectors.shape, np.float32)
    for planes, points in _planes(field.grid):
        moved = points + field.vectors[planes].reshape(-1, 3)
        rest[planes] = (moved - affine_points(affine, points)).reshape(rest[planes].shape)
    return affine, rest


def _broyden(forward, points, found, inverse_jacobian, tolerance_mm, iterations):
    """(x with forward(x) = points, the distance that remains), for each point by itself."""
    best, best_distance = found.copy(), np.full(len(points), np.inf)
    active = np.arange(len(points))
    x, wanted = found, points
    error = wanted - forward(x)
    slope = np.broadcast_to(inverse_jacobian, (len(points), 3, 3)).copy()
    for _ in range(iterations):
        distance = np.linalg.norm(error, axis=1)
        better = distance < best_distance[active]
        best[active[better]], best_distance[active[better]] = x[better], distance[better]
        open_ = distance > tolerance_mm
        if not open_.any():
            break
        active, x, wanted, error, slope = (a[open_] for a in (active, x, wanted, error, slope))
        step = np.einsum("nij,nj->ni", slope, error)
        x = x + step
        previous, error = error, wanted - forward(x)
        slope = _updated(slope, step, previous - error)
    return best, best_distance


def _updated(slope, step, change):
    """Broyden's rank-one update of the inverse Jacobians: afterwards slope · change = step."""
    predicted = np.einsum("nij,nj->ni", slope, change)
    scale = np.einsum("ni,ni->n", step, predicted)
    usable = np.abs(scale) > 0.1 * np.einsum("ni,ni->n", step, step)
    row = np.einsum("ni,nij->nj", step, slope) / np.where(usable, scale, 1)[:, None]
    return slope + np.where(usable, 1.0, 0.0)[:, None, None] * (
        (step - predicted)[:, :, None] * row[:, None, :]
    )
