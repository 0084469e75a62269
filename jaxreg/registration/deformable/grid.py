"""A pair on the grid where the velocity is found: the fixed space, at the training spacing.

The grid around a fixed brain runs along the image's own axes (in RAS order), upright voxels of one
size; where a network's own training grid is taken instead, `placing` says. The moving image comes
onto it through the affine, intensities are normalised as in training, and a field on it becomes one
in millimetres.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxreg.data.intensities import normalize
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.resampling import resample_masked
from jaxreg.geometry.transforms import affine_points
from jaxreg.pair import Pair
from jaxreg.registration.inputs import Subject

MARGIN_MM = 1.0
"""Between the brain and the border, at least. Cohorts lie closely around their brains, and networks
see the share of background through their instance norms: with 5 mm, Dice fell by 0.005."""
MULTIPLE = 16
"""Grid sizes are multiples of it: few shapes, few compilations; the network pads to it anyway."""


def network_grid(
    image: Volume,
    mask: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> Grid:
    """The grid of `spacing_mm` around a mask; where the image has that spacing, its own voxels."""
    axes = image.affine[:3, :3] / image.spacing_mm
    u, _, vt = np.linalg.svd(axes)
    step = (u @ vt) * spacing_mm  # the nearest orthogonal axes
    spans = np.argwhere(mask)
    low, high = spans.min(axis=0) - 0.5, spans.max(axis=0) + 0.5
    factor = np.asarray(image.spacing_mm) / spacing_mm
    width = (high - low) * factor + 2 * MARGIN_MM / np.asarray(spacing_mm)
    shape = (MULTIPLE * np.ceil((width - 1e-3) / MULTIPLE)).astype(int)
    # In voxels of `spacing_mm` whose lattice begins at the image's outer corner.
    start = np.round((low + high + 1) / 2 * factor - shape / 2)
    corner = affine_points(image.affine, np.full((1, 3), -0.5))[0]
    affine = np.eye(4)
    affine[:3, :3] = step
    affine[:3, 3] = corner + step @ (start + 0.5)
    x, y, z = (int(n) for n in shape)
    return Grid((x, y, z), affine)


def on_grid(fixed: Subject, moving: Subject, affine: Float[np.ndarray, "4 4"], grid: Grid) -> Pair:
    """Both sides on a grid, intensities in [0, 1]; `affine` takes fixed mm to moving mm.

    Raises:
        InputError: after the affine, the moving brain does not meet the grid.
    """
    sides = [one_side(fixed, np.eye(4), grid), one_side(moving, affine, grid)]
    ignores = [
        None if s.ignore is None else jnp.asarray(_touched(s, s.ignore, to_image, grid))
        for s, to_image in ((fixed, np.eye(4)), (moving, affine))
    ]
    (f, f_mask), (m, m_mask) = sides
    return Pair(f, m, f_mask, m_mask, *ignores)


def one_side(
    subject: Subject, to_image: Float[np.ndarray, "4 4"], grid: Grid
) -> tuple[Float[Array, "x y z 1"], Bool[Array, "x y z"]]:
    """An image on a grid, in [0, 1], and its brain; `to_image` takes the grid's mm to the image's.

    Raises:
        InputError: the brain does not meet the grid, or is constant.
    """
    values, mask = resample_masked(subject.image, subject.mask, to_image, grid)
    if not mask.any():
        raise InputError(f"{subject.path}: after the affine its brain lies off the fixed one.")
    image = normalize(values, mask)
    if image[mask].min() == image[mask].max():
        raise InputError(f"{subject.path}: expected an image, got a constant brain.")
    return jnp.asarray(image[..., None]), jnp.asarray(mask)


def _touched(subject: Subject, ignore: np.ndarray, to_image: np.ndarray, grid: Grid) -> np.ndarray:
    """Voxels of the grid that see any of an ignore mask."""
    everywhere = np.ones(ignore.shape, bool)
    share = Volume(ignore.astype(np.float32), subject.image.affine)
    return resample_masked(share, everywhere, to_image, grid)[0] > 0


def taper(velocity: Float[Array, "u v w 3"]) -> Float[Array, "u v w 3"]:
    """The velocity brought to zero over the two outer voxels of its grid.

    Beyond the grid nothing moves, so the map stays continuous and exp(−v) its inverse everywhere.
    """
    for axis in range(3):
        at = jnp.arange(velocity.shape[axis])
        ramp = jnp.clip(jnp.minimum(at, at[::-1]) / 2, 0, 1)
        shape = [-1 if a == axis else 1 for a in range(4)]
        velocity = velocity * ramp.reshape(shape)
    return velocity


def in_millimetres(displacement: Float[np.ndarray, "x y z 3"], grid: Grid) -> Field:
    """A displacement in voxels of the grid as a field of RAS millimetres."""
    vectors = np.asarray(displacement) @ grid.affine[:3, :3].T.astype(np.float32)
    return Field(vectors, grid.affine)
