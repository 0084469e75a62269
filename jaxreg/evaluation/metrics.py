"""Scores of one registered pair: overlap, surface distance, folding, inverse consistency.

All are pure functions of one sample; all but those of NumPy arrays (`hd95_mm`, `shared_labels`,
`mean_dice`) can be jitted, and vmapped over λ.
Displacements are in voxels, labels are integers, percentages run from 0 to 100. Determinants and
volumes are taken over a mask, which is the fixed brain: half of a grid or more is background, where
every warp is smooth. At the border of the grid differences are one-sided.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import ndimage

from jaxreg import spatial

_VOXELS, _STRUCTURES = 2**18, 32
"""`mean_dice` computes for multiples of so many, so that images of many sizes share a program."""

DETERMINANT_FLOOR = 1e-3
"""Smallest det J that enters a logarithm: a folded voxel counts as compressed a thousandfold."""


def present(
    fixed_labels: Int[Array, "x y z"],
    moving_labels: Int[Array, "i j k"],
    structures: Int[Array, " s"],
) -> Bool[Array, " s"]:
    """Whether both subjects have the structure: those over which a mean Dice is taken.

    `moving_labels` are the labels before the warp, so that a structure which the warp makes vanish
    stays in the mean, with the 0 that `dice` gives it.
    """
    return (_count(fixed_labels, structures) > 0) & (_count(moving_labels, structures) > 0)


def dice(
    fixed_labels: Int[Array, "x y z"],
    moved_labels: Int[Array, "x y z"],
    structures: Int[Array, " s"],
) -> Float[Array, " s"]:
    """2|A ∩ B| / (|A| + |B|) of each structure, in [0, 1]; NaN where neither volume has it.

    `structures` are distinct labels in any order; all other labels are ignored. The mean of a pair
    is taken over the structures for which `present` is true.
    """
    n = structures.shape[0]
    fixed = _position(fixed_labels, structures)
    moved = _position(moved_labels, structures)
    # One histogram of the moved labels, with the voxels that agree counted in a second set of bins.
    bins = moved + jnp.where(fixed == moved, n + 1, 0)
    apart, both = jnp.bincount(bins.ravel(), length=2 * (n + 1)).reshape(2, n + 1)[:, :n]
    total = jnp.bincount(fixed.ravel(), length=n + 1)[:n] + apart + both
    return jnp.where(total > 0, 2 * both / jnp.maximum(total, 1), jnp.nan)


def shared_labels(
    fixed_labels: Int[np.ndarray, "x y z"], moving_labels: Int[np.ndarray, "i j k"]
) -> Int[np.ndarray, " s"]:
    """The labels that both maps have, in ascending order; 0 is the background and none."""
    both = np.intersect1d(fixed_labels, moving_labels)
    return both[both != 0]


def mean_dice(
    fixed_labels: Int[np.ndarray, "x y z"],
    moved_labels: Int[np.ndarray, "x y z"],
    structures: Int[np.ndarray, " s"],
) -> float:
    """The mean of `dice` over structures that both subjects have, of maps of any size."""
    fixed, moved = (_filled(labels, _VOXELS, 0) for labels in (fixed_labels, moved_labels))
    wanted = _filled(structures, _STRUCTURES, np.iinfo(np.int32).min)[:, 0, 0]
    return float(jnp.nanmean(_dice(fixed, moved, wanted)))


def _filled(labels: np.ndarray, multiple: int, first: int) -> Int[Array, "n 1 1"]:
    """Labels in a row, and labels that count for nothing up to a multiple: few shapes to compile.

    Those are `first` and what follows it where they have to be distinct, as structures have.
    """
    lacking = -labels.size % multiple
    more = first + np.arange(lacking) * (first != 0)
    return jnp.asarray(np.append(labels.ravel(), more).reshape(-1, 1, 1), jnp.int32)


_dice = jax.jit(dice)


def _position(labels, structures):
    """Index of each voxel's label in `structures`, len(structures) where it is not among them."""
    order = jnp.argsort(structures)
    ranked = structures[order]
    rank = jnp.minimum(jnp.searchsorted(ranked, labels), structures.shape[0] - 1)
    return jnp.where(ranked[rank] == labels, order[rank], structures.shape[0])


def _count(labels, structures):
    """Voxels of each structure."""
    n = structures.shape[0]
    return jnp.bincount(_position(labels, structures).ravel(), length=n + 1)[:n]


def hd95_mm(
    fixed_labels: Int[np.ndarray, "x y z"],
    moved_labels: Int[np.ndarray, "x y z"],
    structures: Int[np.ndarray, " s"],
    spacing_mm: tuple[float, float, float],
) -> Float[np.ndarray, " s"]:
    """95th percentile Hausdorff distance of each structure in mm; NaN where a volume lacks it.

    The larger of the two directed 95th percentiles, as in the Learn2Reg challenge. A surface is the
    structure's voxels with a face neighbour outside it (outside the grid counts), distances run
    between voxel centres, and percentiles interpolate linearly between the sorted distances.
    """
    pairs = ((fixed_labels == s, moved_labels == s) for s in structures)
    return np.array([_hd95_mm(a, b, spacing_mm) for a, b in pairs], np.float64)


def _hd95_mm(fixed, moved, spacing_mm):
    """`hd95_mm` of one structure's masks."""
    if not (fixed.any() and moved.any()):
        return np.nan
    (box,) = ndimage.find_objects((fixed | moved).astype(np.int8))
    fixed, moved = (_surface(mask[box]) for mask in (fixed, moved))
    return max(_directed95(fixed, moved, spacing_mm), _directed95(moved, fixed, spacing_mm))


def _surface(mask):
    """Voxels of the mask with a face neighbour outside it."""
    return mask & np.logical_not(ndimage.binary_erosion(mask))


def _directed95(start, end, spacing_mm):
    """95th percentile of the distances (mm) from the voxels of `start` to the nearest of `end`."""
    distance = np.asarray(ndimage.distance_transform_edt(np.logical_not(end), spacing_mm))
    return np.percentile(distance[start], 95)


def folds_percent(
    displacement: Float[Array, "x y z 3"], mask: Bool[Array, "x y z"]
) -> Float[Array, ""]:
    """Percentage of the mask's voxels with det J ≤ 0 by central differences; NaN if it is empty."""
    return 100 * jnp.mean(spatial.jacobian_determinant(displacement) <= 0, where=mask)


def sdlogj(
    displacement: Float[Array, "x y z 3"],
    mask: Bool[Array, "x y z"],
    *,
    floor: float = DETERMINANT_FLOOR,
) -> Float[Array, ""]:
    """Standard deviation of log det J (natural logarithm) in a mask; 0 if affine, NaN if empty.

    det J is by central differences and raised to `floor` (1e-3) first, so that a fold counts as
    log 0.001 = −6.9 whatever its depth.
    """
    determinant = spatial.jacobian_determinant(displacement)
    return jnp.std(jnp.log(jnp.maximum(determinant, floor)), where=mask)


def non_diffeomorphic_volume(
    displacement: Float[Array, "x y z 3"], mask: Bool[Array, "x y z"]
) -> Float[Array, ""]:
    """Folded volume in % of the mask's, by tetrahedra instead of central differences; NaN if empty.

    Liu et al., "On Finite Difference Jacobian Computation in Deformable Image Registration",
    IJCV 2024: a digital warp is diffeomorphic if the ten tetrahedra of every cell (a cube between
    eight voxel centres) keep their orientation: the eight at its corners, whose determinants are
    the forward and backward differences J+++ … J−−−, and the two inside it, J1* and J2*. The volume
    is ½ Σ max(−det, 0)/6: the ten are two ways to fill the cell with five, so their mean is taken,
    and a mirrored grid scores 100. Where we depart: those cells are counted whose eight corners lie
    in the mask, instead of the voxels of a padded grid.
    """
    # Component by component: four times faster on a CPU than slices of [x, y, z, 3].
    u = [displacement[..., a] for a in range(3)]
    size = [n - 1 for n in u[0].shape]

    def edge(start, end):
        """Components of φ(end) − φ(start) in every cell."""
        here, there = (tuple(map(slice, at, np.add(at, size))) for at in (start, end))
        return [u[a][there] - u[a][here] + (end[a] - start[a]) for a in range(3)]

    folded = jnp.zeros(size, displacement.dtype)
    for origin, *ends in _TETRAHEDRA:
        a, b, c = (edge(origin, end) for end in ends)
        folded += jnp.maximum(-_determinant(a, b, c), 0)
    corners = [tuple(map(slice, at, np.add(at, size))) for at in np.ndindex(2, 2, 2)]
    inside = functools.reduce(jnp.logical_and, [mask[corner] for corner in corners])
    return 100 * jnp.mean(folded, where=inside) / 12


def _determinant(a, b, c):
    """Triple product a · (b × c) of vectors given as lists of three component arrays."""
    return (
        a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )


def _tetrahedra():
    """The ten tetrahedra of a unit cell, four corners each, positively oriented."""
    inside = np.array([(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)])
    at_corners = [np.abs(np.array(at) - np.eye(4, 3, -1)) for at in np.ndindex(2, 2, 2)]
    result = []
    for tetrahedron in [*at_corners, inside, 1 - inside]:
        origin, a, b, c = (tuple(int(i) for i in corner) for corner in tetrahedron)
        edges = np.array([a, b, c]) - np.array(origin)
        result.append((origin, a, b, c) if np.linalg.det(edges) > 0 else (origin, b, a, c))
    return result


_TETRAHEDRA = _tetrahedra()


def inverse_consistency_mm(
    forward: Float[Array, "x y z 3"],
    inverse: Float[Array, "x y z 3"],
    mask: Bool[Array, "x y z"],
    spacing_mm: tuple[float, float, float] | Float[Array, "3"],
) -> Float[Array, ""]:
    """Mean of ‖φ⁻¹(φ(x)) − x‖ over the mask in millimetres; NaN if the mask is empty.

    `forward` is the displacement of φ and `inverse` that of φ⁻¹, which is sampled linearly.
    """
    error = spatial.compose(forward, inverse)
    squared = sum((error[..., a] * spacing_mm[a]) ** 2 for a in range(3))
    return jnp.mean(jnp.sqrt(squared), where=mask)
