"""The network grid: where a pair's velocity is found, in the fixed space at the training spacing.

A network has learnt where its training grid shows what. Validation pairs as scanners give them,
turned by up to 15° about each axis, had 0.03 more Dice on the training grid laid onto the fixed
brain than on a grid around it. A grid around the brain runs along the image's own axes (in RAS
order). The moving image comes onto the grid through the affine, intensities are normalised as in
training, and a field on the grid becomes one in millimetres.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxreg.data.intensities import normalize, normalized_on_grid
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume, grid_of
from jaxreg.geometry.resampling import resample_any
from jaxreg.geometry.transforms import affine_points
from jaxreg.pair import Pair
from jaxreg.registration.deformable.deformation import no_deformation
from jaxreg.registration.deformable.method import Method
from jaxreg.registration.inputs import Subject
from jaxreg.registration.linear.affine import register_affine
from jaxreg.segmentation.template import GRID

MARGIN_MM = 1.0
"""Between the brain and the border, at least. Cohorts lie closely around their brains, and networks
see the share of background through their instance norms: with 5 mm, Dice fell by 0.005."""
MULTIPLE = 16
"""Grid sizes are multiples of it: few shapes, few compilations; the network pads to it anyway."""
COVERED = 0.99
"""Share of the fixed brain that has to lie on the training grid."""


class NetworkGrid(NamedTuple):
    """A network grid in the fixed space, and in words how it was found."""

    grid: Grid
    how: str


def network_grid(method: Method, fixed: Subject) -> NetworkGrid:
    """The network grid of a fixed image.

    With a network that knows its template that is the training grid: as it is where the image lies
    on it (as prepared images do), else under the affine by which segmentation found the brain, else
    under the rigid or affine map from the template to the fixed brain, whichever gives the higher
    local correlation. Without a template, for a whole head in which no brain was found, or where no
    such map brings the brain onto the training grid, it is one around the brain.
    """
    around = functools.partial(grid_around, fixed.image, fixed.mask, method.spacing_mm)
    template = None if method.model is None else method.model.template
    if template is None or not fixed.brain_known:
        return NetworkGrid(
            around(), "around the fixed brain" if fixed.brain_known else "around the head"
        )
    grid = grid_of(template)
    own = grid_of(fixed.image)
    if own.shape == grid.shape and np.allclose(own.affine, grid.affine, atol=1e-2):
        return NetworkGrid(grid, "the fixed image's, which is that of the network's training")
    posed = None if fixed.brain is None else fixed.brain.to_image
    if posed is not None and grid.shape == GRID.shape and np.allclose(grid.affine, GRID.affine):
        laid = Grid(grid.shape, posed @ grid.affine)
        if _covered(fixed, laid) >= COVERED:
            how = "that of the network's training, laid onto the fixed brain (segmentation)"
            return NetworkGrid(laid, how)
    found = []
    for name, to_fixed in _template_starts(fixed, template).items():
        laid = Grid(grid.shape, to_fixed @ grid.affine)
        if _covered(fixed, laid) >= COVERED:
            pair = _with_template(fixed, template, laid)
            found.append((no_deformation(method, pair).similarity, name, laid))
    if not found:
        return NetworkGrid(
            around(), "around the fixed brain, which fits the network's template nowhere"
        )
    _, name, laid = max(found, key=lambda row: row[0])
    return NetworkGrid(laid, f"that of the network's training, laid onto the fixed brain ({name})")


def _template_starts(fixed: Subject, template: Volume) -> dict[str, Float[np.ndarray, "4 4"]]:
    """Linear maps from the template's space to the fixed one (RAS mm), by name."""
    brain = template.array != 0
    together = np.eye(4)  # whatever place the fixed image's header gives it
    together[:3, 3] = _centre(fixed.image.affine, fixed.mask) - _centre(template.affine, brain)
    register = functools.partial(
        register_affine,
        Volume(template.array, together @ template.affine),
        fixed.image,
        fixed_mask=brain,
        moving_mask=fixed.mask,
        moving_ignore=fixed.ignore,
    )
    found = {}
    with contextlib.suppress(InputError):  # scales that no head has: the grid surrounds the brain
        found["rigid"] = register(mode="rigid", fine=False)
        found["affine"] = register(mode="affine", rigid=found["rigid"])
    return {name: matrix @ together for name, matrix in found.items()}


def _centre(affine: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return affine_points(affine, np.argwhere(mask).mean(axis=0)[None])[0]


def _covered(fixed: Subject, grid: Grid) -> float:
    """The share of the fixed brain's voxels whose centres lie on a grid."""
    to_index = np.linalg.inv(grid.affine) @ fixed.image.affine
    index = affine_points(to_index, np.argwhere(fixed.mask).astype(float))
    inside = (index >= -0.5) & (index <= np.asarray(grid.shape) - 0.5)
    return float(inside.all(axis=1).mean())


def _with_template(fixed: Subject, template: Volume, grid: Grid) -> Pair:
    """The template, on its own voxels, and the fixed image on the same grid laid onto it."""
    brain = template.array != 0
    mean = normalize(template.array.astype(np.float32), brain)
    image, mask, _ = one_side(fixed, np.eye(4), grid)
    return Pair(jnp.asarray(mean[..., None]), image, jnp.asarray(brain), mask)


def grid_around(
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


def pairs_on_grid(
    fixed: Subject,
    moving: Subject,
    affines: Mapping[str, Float[np.ndarray, "4 4"]],
    grid: Grid,
) -> Iterator[tuple[str, Pair | InputError]]:
    """As `on_grid` for each of some affines, by name; the fixed side comes onto the grid once.

    Where the brains do not meet, the error stands in the pair's place.
    """
    side = one_side(fixed, np.eye(4), grid)
    for name, affine in affines.items():
        try:
            moved = one_side(moving, affine, grid)
        except InputError as error:
            yield name, error
        else:
            (f, f_mask, f_ignore), (m, m_mask, m_ignore) = side, moved
            yield name, Pair(f, m, f_mask, m_mask, f_ignore, m_ignore)


def on_grid(fixed: Subject, moving: Subject, affine: Float[np.ndarray, "4 4"], grid: Grid) -> Pair:
    """Both sides on a grid, intensities in [0, 1]; `affine` takes fixed mm to moving mm.

    Raises:
        InputError: after the affine, the moving brain does not meet the grid.
    """
    ((_, pair),) = pairs_on_grid(fixed, moving, {"": affine}, grid)
    if isinstance(pair, InputError):
        raise pair
    return pair


def one_side(
    subject: Subject, to_image: Float[np.ndarray, "4 4"], grid: Grid
) -> tuple[Float[Array, "x y z 1"], Bool[Array, "x y z"], Bool[Array, "x y z"] | None]:
    """An image on a grid, in [0, 1], its brain, and what to ignore there, None if nothing is.

    `to_image` takes the grid's mm to the image's.

    Raises:
        InputError: the brain does not meet the grid, or is constant.
    """
    ignored = None
    if subject.ignore is not None:
        ignored = resample_any(subject.ignore, subject.image.affine, to_image, grid)
    image, mask = normalized_on_grid(
        subject.image, subject.mask, to_image, grid, zero=subject.zero, ignored=ignored
    )
    if not mask.any():
        raise InputError(f"{subject.path}: after the affine its brain lies off the fixed one.")
    if image[mask].min() == image[mask].max():
        raise InputError(f"{subject.path}: expected an image, got a constant brain.")
    at = None if ignored is None else jnp.asarray(ignored)
    return jnp.asarray(image[..., None]), jnp.asarray(mask), at


def in_millimetres(displacement: Float[np.ndarray, "x y z 3"], grid: Grid) -> Field:
    """A displacement in voxels of the grid as a field of RAS millimetres."""
    vectors = np.asarray(displacement) @ grid.affine[:3, :3].T.astype(np.float32)
    return Field(vectors, grid.affine)
