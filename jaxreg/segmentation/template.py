"""Where the structures of the mean brain lie, and the affine map that lays a brain onto it.

The template space is that of the prepared cohorts (MNI millimetres), its grid theirs. The centroids
are the means over the 119 training subjects of `ixi` (CC BY-SA 3.0), both sides made symmetric, so
that a mirrored brain is laid as well as the brain itself.
"""

from types import MappingProxyType

import numpy as np
from jaxtyping import Float, UInt8

from jaxreg.data.label_codes import NUMBERS, REST
from jaxreg.geometry.grid import Grid

GRID = Grid(
    (80, 96, 80),
    np.array([[2.0, 0, 0, -79], [0, 2, 0, -112], [0, 0, 2, -71], [0, 0, 0, 1]]),
)
"""The template grid: 2 mm, RAS, its middle plane at x = 0."""
CENTROIDS_MM = MappingProxyType(
    {
        2: (-27.57, -16.52, 18.42),
        3: (-31.89, -17.42, 14.71),
        4: (-13.52, -15.04, 14.59),
        5: (-30.55, -15.44, -16.73),
        7: (-18.38, -53.06, -33.28),
        8: (-23.77, -62.36, -34.31),
        10: (-11.66, -18.39, 6.40),
        11: (-13.18, 8.73, 10.04),
        12: (-24.95, 0.71, 0.34),
        13: (-19.74, -3.78, -1.01),
        14: (0.00, -10.77, -2.79),
        15: (0.00, -45.45, -31.68),
        16: (0.00, -32.09, -32.06),
        17: (-25.67, -22.49, -12.42),
        18: (-21.20, -6.30, -18.56),
        26: (-9.36, 10.37, -6.19),
        28: (-9.61, -16.19, -9.57),
        41: (27.57, -16.52, 18.42),
        42: (31.89, -17.42, 14.71),
        43: (13.52, -15.04, 14.59),
        44: (30.55, -15.44, -16.73),
        46: (18.38, -53.06, -33.28),
        47: (23.77, -62.36, -34.31),
        49: (11.66, -18.39, 6.40),
        50: (13.18, 8.73, 10.04),
        51: (24.95, 0.71, 0.34),
        52: (19.74, -3.78, -1.01),
        53: (25.67, -22.49, -12.42),
        54: (21.20, -6.30, -18.56),
        58: (9.36, 10.37, -6.19),
        60: (9.61, -16.19, -9.57),
    }
)
"""Centroid of each structure of the mean brain, by FreeSurfer's number, in template millimetres."""
FEWEST_STRUCTURES = 8
"""So many structures must be there for an affine fit of 12 numbers to be safe."""


def centroids_mm(
    codes: UInt8[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "s 3"], Float[np.ndarray, " s"]]:
    """(centroids in world millimetres, volumes in ml) of the structures in a map of codes.

    The centroid of a structure that is not there is 0, and its volume too.
    """
    flat = codes.ravel()
    flat = np.where(flat <= REST, flat, 0)
    count = np.bincount(flat, minlength=REST + 1)[1:REST]
    sums = []
    for axis, n in enumerate(codes.shape):
        index = np.arange(n, dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        weights = np.broadcast_to(index, codes.shape).ravel()
        sums.append(np.bincount(flat, weights, minlength=REST + 1)[1:REST])
    centre = np.stack(sums, axis=-1) / np.maximum(count, 1)[:, None]
    world = centre @ affine[:3, :3].T + affine[:3, 3]
    volume_ml = count * abs(np.linalg.det(affine[:3, :3])) / 1000
    return np.where(count[:, None] > 0, world, 0), volume_ml


def from_template(
    centroids: Float[np.ndarray, "s 3"], volume_ml: Float[np.ndarray, " s"]
) -> Float[np.ndarray, "4 4"]:
    """The affine from template to world millimetres that fits the centroids, weighted.

    A structure counts with the square root of its volume, at most 1 ml's: the centroids of small
    ones are known less well.

    Raises:
        ValueError: fewer than eight structures are there.
    """
    there = volume_ml > 0
    if there.sum() < FEWEST_STRUCTURES:
        raise ValueError(
            f"expected at least {FEWEST_STRUCTURES} structures, got {int(there.sum())}."
        )
    weight = np.sqrt(np.sqrt(np.minimum(volume_ml[there], 1.0)))[:, None]
    template = np.array([CENTROIDS_MM[number] for number in NUMBERS[1:REST]])[there]
    homogeneous = np.column_stack([template, np.ones(len(template))])
    solution = np.linalg.lstsq(weight * homogeneous, weight * centroids[there], rcond=None)[0]
    matrix = np.eye(4)
    matrix[:3] = solution.T
    return matrix
