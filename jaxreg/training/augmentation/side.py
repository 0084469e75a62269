"""What a pair holds of one subject, and all of it at other points."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jaxreg.pair import Pair
from jaxreg.spatial import identity_grid, sample


class Side(NamedTuple):
    """What a pair holds of one subject."""

    image: Float[Array, "x y z 1"]
    mask: Bool[Array, "x y z"]
    ignore: Bool[Array, "x y z"] | None
    labels: Shaped[Array, "x y z"] | None
    in_fixed_contrast: Float[Array, "x y z 1"] | None = None

    def under(self, matrix: Float[Array, "4 4"]) -> "Side":
        """All of it at the points that a matrix takes the grid's voxels to."""
        grid = identity_grid(self.mask.shape)
        return self.at(grid @ matrix[:3, :3].T + matrix[:3, 3][None, None, None])

    def at(self, points: Float[Array, "x y z 3"]) -> "Side":
        """All of it at some points, in voxels.

        Images and masks linearly, with 0 from beyond the grid; labels and ignore masks by the
        nearest voxel.
        """
        shape = self.mask.shape
        last = jnp.asarray(shape, jnp.float32)[None, None, None] - 0.5
        inside = jnp.all((points >= -0.5) & (points <= last), axis=-1)
        weight = self.mask[..., None].astype(self.image.dtype)
        images = [i for i in (self.image, self.in_fixed_contrast) if i is not None]
        values = sample(jnp.concatenate([weight, *(weight * i for i in images)], -1), points)
        mask = inside & (values[..., 0] > 0.5)
        # The mean of what lies in the mask, so that the background does not shine into the rim.
        seen = jnp.where(mask[..., None], values[..., 1:] / jnp.maximum(values[..., :1], 0.5), 0)

        def nearest(volume):
            if volume is None:
                return None
            found = sample(volume[..., None], points, order=0)[..., 0]
            return jnp.where(inside, found, jnp.zeros((), volume.dtype))

        return Side(
            seen[..., :1],
            mask,
            nearest(self.ignore),
            nearest(self.labels),
            None if self.in_fixed_contrast is None else seen[..., 1:],
        )


def sides_of(pair: Pair) -> tuple[Side, Side]:
    """What a pair holds of the fixed and of the moving subject."""
    return (
        Side(pair.fixed, pair.fixed_mask, pair.fixed_ignore, pair.fixed_labels),
        Side(
            pair.moving,
            pair.moving_mask,
            pair.moving_ignore,
            pair.moving_labels,
            pair.moving_in_fixed_contrast,
        ),
    )


def pair_of(fixed: Side, moving: Side, taught: Bool[Array, ""] | None) -> Pair:
    """The pair of two subjects; `taught` as `Pair` has it."""
    return Pair(
        fixed.image,
        moving.image,
        fixed.mask,
        moving.mask,
        fixed.ignore,
        moving.ignore,
        moving.in_fixed_contrast,
        fixed.labels,
        moving.labels,
        taught,
    )
