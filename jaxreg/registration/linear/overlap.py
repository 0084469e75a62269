"""The affine that most overlaps two brains, and their structures, that segmentation found.

Both brains lie on the template grid already, each laid there by the centroids of its structures.
What remains between them is a small affine of that grid. It is found by gradient ascent on the mean
of two overlaps: the mean Dice of the structures, and the Dice of the whole brains. Matrices that
leave this module are 4×4, float64, RAS millimetres, and map points of the fixed space to the moving
space.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, UInt8
from scipy import ndimage

from jaxreg.data.label_codes import REST
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import affine_points
from jaxreg.registration.inputs import Subject
from jaxreg.segmentation.brain import FoundBrain
from jaxreg.segmentation.template import FEWEST_STRUCTURES, GRID
from jaxreg.spatial import corners
from jaxreg.stored_programs import stored_program

_STRUCTURES, _BRAINS = REST - 1, 8
"""Rows of points: one for each structure, and several for the brain, whose outline few points of a
row are near to."""
_POINTS = 1000
"""Points of a row, drawn within its voxels: those of a small structure are drawn repeatedly."""
_STEPS, _RATE = 60, 0.01
"""Steps of Adam, and the first of them: a shift of 0.8 to 1 mm, or as much at the grid's edge. The
rate falls to a tenth by half a cosine."""
_CUT_SHARE = 0.02
"""A structure is cut where more of its voxels than this lie at the edge of the field of view, or
where the other brain has nothing."""
_DEEP, _LOST_SHARE = 4, 0.045
"""What lies so many voxels (8 mm) within the outline of one brain and is missing in the other is
lost there. A brain lacks a part where that is more than this share of it: brains without cerebellum
and brain stem lacked 0.055 to 0.073, and whole ones of other shape up to 0.037."""
_CENTRE = np.array(GRID.shape) / 2


class Overlap(NamedTuple):
    """Two brains as the overlap of their structures sees them, on the template grid.

    `points` are voxel coordinates within each structure of the fixed brain, the last rows within
    the whole brain; `codes` is the map of the moving brain. Sizes, in voxels, and `counts`, which
    says what takes part, have a number for each row.
    """

    points: Float[np.ndarray, "k n 3"]
    codes: UInt8[np.ndarray, "x y z"]
    fixed_sizes: Float[np.ndarray, " k"]
    moving_sizes: Float[np.ndarray, " k"]
    counts: Bool[np.ndarray, " k"]
    fixed: FoundBrain
    moving: FoundBrain

    @property
    def start(self) -> Float[np.ndarray, "4 4"]:
        """The affine between the centroids of both, by way of the template's."""
        return self.moving.to_image @ np.linalg.inv(self.fixed.to_image)

    @property
    def whole(self) -> bool:
        """Whether neither brain lacks a part that the other one has."""
        return bool(self.counts[_STRUCTURES:].all())

    def dice(self, matrix: Float[np.ndarray, "4 4"]) -> float:
        """Mean Dice of the structures, in [0, 1], under an affine from fixed to moving."""
        return self._overlap(matrix, self._structures / max(self._structures.sum(), 1))

    def best_affine(self) -> Float[np.ndarray, "4 4"]:
        """The affine of the largest overlap that ascent finds from the centroids' affine.

        That of the centroids itself where ascent ends lower, or where fewer than eight structures
        are whole in both brains. Equal brains give equal bytes.
        """
        start = self.start
        if self._structures.sum() < FEWEST_STRUCTURES:
            return start
        weights = self._weights
        found = _matrix(np.asarray(_ascended(*self._arrays, weights), np.float64))
        matrix = self.moving.affine @ found @ np.linalg.inv(self.fixed.affine)
        return matrix if self._overlap(matrix, weights) > self._overlap(start, weights) else start

    @property
    def _structures(self) -> Float32[np.ndarray, " k"]:
        """1 for the rows of the structures that take part."""
        return np.where(np.arange(len(self.counts)) < _STRUCTURES, self.counts, 0).astype(
            np.float32
        )

    @property
    def _weights(self) -> Float32[np.ndarray, " k"]:
        """Half for the structures, half for the brain where that is whole; their sum is 1."""
        structures, brains = self._structures, self.counts - self._structures
        half = structures / structures.sum() + brains / max(brains.sum(), 1)
        return (half / half.sum()).astype(np.float32)

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.points, self.codes, self.fixed_sizes, self.moving_sizes

    def _overlap(self, matrix: Float[np.ndarray, "4 4"], weights: np.ndarray) -> float:
        there = np.linalg.inv(self.moving.affine) @ matrix @ self.fixed.affine
        return float(_dice(_parameters(there), *self._arrays, weights))


def overlap_between(fixed: Subject, moving: Subject) -> Overlap | None:
    """The overlap of two sides, None where the brain of one of them was not found."""
    if fixed.brain is None or moving.brain is None:
        return None
    fixed_sizes, moving_sizes = _sizes(fixed.brain.codes), _sizes(moving.brain.codes)
    cut = _cut(fixed.brain, fixed.image) | _cut(moving.brain, moving.image)
    cut |= _lost(fixed.brain, moving.brain) | _lost(moving.brain, fixed.brain)
    return Overlap(
        _points_within(fixed.brain.codes),
        moving.brain.codes,
        fixed_sizes,
        moving_sizes,
        (fixed_sizes > 0) & (moving_sizes > 0) & ~cut,
        fixed.brain,
        moving.brain,
    )


def _points_within(codes: UInt8[np.ndarray, "x y z"]) -> Float32[np.ndarray, "k n 3"]:
    """Points within each structure, then within the brain: a place by chance in voxels by chance.

    Voxel centres alone would make the overlap largest where both grids coincide.
    """
    random = np.random.default_rng(0)
    points = np.zeros((_STRUCTURES + _BRAINS, _POINTS, 3), np.float32)
    flat = codes.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(1, _STRUCTURES + 2))
    for row in range(len(points)):
        inside = slice(ends[row], ends[row + 1]) if row < _STRUCTURES else slice(ends[0], None)
        voxels = order[inside]
        if len(voxels):
            drawn = random.choice(voxels, _POINTS, replace=len(voxels) < _POINTS)
            within = random.uniform(-0.5, 0.5, (_POINTS, 3))
            points[row] = np.stack(np.unravel_index(drawn, codes.shape), axis=-1) + within
    return points


def _sizes(codes: UInt8[np.ndarray, "x y z"]) -> Float32[np.ndarray, " k"]:
    """Voxels of each structure, then of the brain for each of its rows."""
    sizes = np.bincount(codes.ravel(), minlength=REST + 1)[1:]
    return np.append(sizes[:_STRUCTURES], np.full(_BRAINS, sizes.sum())).astype(np.float32)


def _cut(brain: FoundBrain, image: Volume) -> Bool[np.ndarray, " k"]:
    """Which structures the field of view of their image cuts, and whether it cuts the brain."""
    index = np.moveaxis(np.indices(GRID.shape), 0, -1).reshape(-1, 3)
    there = affine_points(np.linalg.inv(image.affine) @ brain.affine, index.astype(np.float64))
    last = np.asarray(image.array.shape) - 0.5
    outside = ((there < -0.5) | (there > last)).any(axis=1).reshape(GRID.shape)
    at_edge = np.where(ndimage.binary_dilation(outside), brain.codes, 0)
    return _sizes(at_edge) > _CUT_SHARE * _sizes(brain.codes)


def _lost(brain: FoundBrain, other: FoundBrain) -> Bool[np.ndarray, " k"]:
    """Which structures of the other brain, and whether of the brain, a brain lacks a part."""
    deep = ndimage.binary_erosion(other.codes > 0, iterations=_DEEP)
    gone = np.where(deep & (brain.codes == 0), other.codes, 0)
    share = np.repeat([_CUT_SHARE, _LOST_SHARE], [_STRUCTURES, _BRAINS])
    return _sizes(gone) > share * _sizes(other.codes)


def _matrix(parameters: Float[np.ndarray, "3 4"]) -> Float[np.ndarray, "4 4"]:
    """The affine of voxel coordinates of the template grid that parameters stand for."""
    matrix = np.eye(4)
    turn = _CENTRE[:, None] * parameters[:, :3] / _CENTRE
    matrix[:3, :3] += turn
    matrix[:3, 3] = _CENTRE * parameters[:, 3] - turn @ _CENTRE
    return matrix


def _parameters(matrix: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3 4"]:
    """The inverse of `_matrix`: one unit moves the grid, or its edge, by half of its extent."""
    turn = matrix[:3, :3] - np.eye(3)
    shift = matrix[:3, 3] + turn @ _CENTRE
    parameters = np.column_stack([turn * _CENTRE, shift]) / _CENTRE[:, None]
    return parameters.astype(np.float32)


@stored_program()
def _dice(
    parameters: Float[Array, "3 4"],
    points: Float[Array, "k n 3"],
    codes: UInt8[Array, "x y z"],
    fixed_sizes: Float[Array, " k"],
    moving_sizes: Float[Array, " k"],
    weights: Float[Array, " k"],
) -> Float[Array, ""]:
    """Sum of the weighted Dice of all rows, the moving codes read linearly at the points.

    The size of what is moved is its own by the determinant of the affine.
    """
    centre = jnp.asarray(_CENTRE, jnp.float32)
    turn = jnp.eye(3) + parameters[:, :3] * (centre[:, None] / centre[None])
    shift = centre + centre * parameters[:, 3] - turn @ centre
    there = points @ turn.T + shift[None, None]
    flat, row = codes.reshape(-1), jnp.arange(1, 1 + len(points), dtype=codes.dtype)[:, None]
    same = jnp.zeros(points.shape[:2])
    for index, (wx, wy, wz), _ in corners(codes.shape, there):
        found = flat.at[index].get(mode="promise_in_bounds")
        inside = jnp.where(row > _STRUCTURES, found > 0, found == row)
        same = same + jnp.where(inside, wx * wy * wz, 0)
    moved_sizes = moving_sizes / jnp.maximum(jnp.abs(jnp.linalg.det(turn)), 1e-6)
    dice = 2 * same.mean(axis=1) * fixed_sizes / jnp.maximum(fixed_sizes + moved_sizes, 1e-6)
    return jnp.sum(weights * dice)


@stored_program()
def _ascended(
    points: Float[Array, "k n 3"],
    codes: UInt8[Array, "x y z"],
    fixed_sizes: Float[Array, " k"],
    moving_sizes: Float[Array, " k"],
    weights: Float[Array, " k"],
) -> Float[Array, "3 4"]:
    """The parameters after the steps of Adam, from the identity."""
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS, alpha=0.1))

    def loss(parameters):
        return -_dice(parameters, points, codes, fixed_sizes, moving_sizes, weights)

    def step(carry, _):
        parameters, state = carry
        updates, state = optimizer.update(jax.grad(loss)(parameters), state)
        return (optax.apply_updates(parameters, updates), state), None

    start = jnp.zeros((3, 4))
    (parameters, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=_STEPS)
    return jnp.asarray(parameters)
