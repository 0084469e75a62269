"""The subjects' volumes on the device, and what is seen of one at points between its voxels.

Points are in millimetres about the centre of the network's grid. `Atlas.frames` takes them to the
voxels of a subject, so that subjects keep their own grids.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from jaxreg.training.augmentation.synthesis.noise import centred

Fields = tuple[Array, Array, Array]
"""The three components of a vector at each voxel, each `[x, y, z]`."""


class Atlas(NamedTuple):
    """The subjects' volumes, one after another, in arrays that stay on the device."""

    codes: UInt8[Array, " v"]
    """Label codes of all subjects."""
    images: UInt8[Array, " w"]
    """Real images of the subjects who have any, each on the grid of the subject's codes."""
    start: Int[Array, " s"]
    """Where a subject's codes begin."""
    image_start: Int[Array, "s 2"]
    """Where a subject's two images begin; of one image twice its place, -1 where there is none."""
    shape: Int[Array, "s 3"]
    """Voxels of a subject along each axis."""
    frames: Float[Array, "s 4 4"]
    """Millimetres about the centre of the network's grid to the subject's voxels, no pose added."""
    has_head: Array
    """Whether there is anything around the brain."""


class View(NamedTuple):
    """A network's grid and what it must expect to see there."""

    shape: tuple[int, int, int]
    spacing_mm: float
    any_pose: bool
    """Whether the head may lie in any orientation; otherwise it was laid onto the template."""
    extracted: float
    """Share of the images whose brain was extracted."""


FINE = View((80, 96, 80), 2.0, False, 0.4)
COARSE = View((64, 64, 64), 4.0, True, 0.25)


def points_in_subject(
    frame: Float[Array, "4 4"], displacement: Fields, spacing_mm: float
) -> Fields:
    """Voxels of a subject at each displaced voxel of a centred grid."""
    shape = displacement[0].shape
    at = []
    for axis in range(3):
        along = [-1 if a == axis else 1 for a in range(3)]
        at.append(centred(shape[axis], spacing_mm).reshape(along) + displacement[axis])
    x, y, z = at

    def row(a):
        return frame[a, 0] * x + frame[a, 1] * y + frame[a, 2] * z + frame[a, 3]

    return row(0), row(1), row(2)


def chosen_image(
    key: PRNGKeyArray, atlas: Atlas, subject: Int[Array, ""], real_share: float
) -> tuple[Bool[Array, ""], Int[Array, ""]]:
    """(whether the image is a real one, where it begins in `atlas.images`)."""
    real_key, which_key = jax.random.split(key)
    starts = atlas.image_start[subject]
    start = starts[jax.random.randint(which_key, (), 0, 2)]
    return jax.random.bernoulli(real_key, real_share) & (start >= 0), jnp.maximum(start, 0)


def sampled(
    atlas: Atlas, subject: Int[Array, ""], points: Fields, image_start: Int[Array, ""] | None
) -> tuple[UInt8[Array, "x y z"], Float[Array, "x y z"]]:
    """(codes, intensities) of a subject at points in voxels; 0 from beyond the subject's grid.

    The code is that with the largest weight among the eight voxels around a point, so that labels
    of 2 mm have smooth borders at 1 mm. Without `image_start` there are no intensities.
    """
    shape = atlas.shape[subject]
    low, fraction = [], []
    inside = True
    for axis, at in enumerate(points):
        n = shape[axis]
        inside = inside & (at >= -0.5) & (at <= n - 0.5)
        at = jnp.clip(at, 0, n - 1)
        below = jnp.minimum(jnp.floor(at).astype(jnp.int32), n - 2)
        low.append(below)
        fraction.append(at - below)
    base = (low[0] * shape[1] + low[1]) * shape[2] + low[2]
    codes, weights, values = [], [], jnp.zeros(points[0].shape)
    for corner in np.ndindex(2, 2, 2):
        index = base + (corner[0] * shape[1] + corner[1]) * shape[2] + corner[2]
        parts = [f if c else 1 - f for c, f in zip(corner, fraction, strict=True)]
        weights.append(parts[0] * parts[1] * parts[2])
        codes.append(atlas.codes.at[atlas.start[subject] + index].get(mode="promise_in_bounds"))
        if image_start is not None:
            seen = atlas.images.at[image_start + index].get(mode="clip")
            values = values + weights[-1] * seen.astype(jnp.float32) / 255
    best, most = codes[0], jnp.zeros(points[0].shape)
    for code in codes:
        votes = sum(jnp.where(c == code, w, 0) for c, w in zip(codes, weights, strict=True))
        best, most = jnp.where(votes > most, code, best), jnp.maximum(votes, most)
    return jnp.where(inside, best, jnp.uint8(0)), jnp.where(inside, values, 0)
