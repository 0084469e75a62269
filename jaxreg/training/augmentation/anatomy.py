"""Moving subjects whose anatomy lies between that of two training subjects, or beyond."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxreg.pair import Pair
from jaxreg.spatial import displacement_of, identity_grid
from jaxreg.training.augmentation.side import pair_of, sides_of

LAM = 0.5
"""The smoothness of the network's map from one subject to the other, if it has several."""
AWAY, TOWARDS = 0.7, 0.5
"""The largest part of that map by which the moving subject moves away from the fixed one, or
towards it."""


def with_mixed_anatomy(
    key: PRNGKeyArray,
    pair: Pair,
    share: float,
    velocity_of: Callable[[Pair], Float[Array, "u v w 3"]],
    *,
    squarings: int,
) -> Pair:
    """The pair, in the share of the cases with a moving subject of a mixed anatomy.

    exp(t v) moves it, where `velocity_of` gives the v that registers the pair and t is uniform from
    −`AWAY` to `TOWARDS`; image, mask, labels and its own image in the fixed contrast move alike.
    """
    choice_key, part_key = jax.random.split(key)
    part = jax.random.uniform(part_key, minval=-AWAY, maxval=TOWARDS)
    part = part * jax.random.bernoulli(choice_key, share)
    velocity = jax.lax.stop_gradient(velocity_of(pair))
    shape = pair.moving.shape[:3]
    moved = identity_grid(shape) + displacement_of(part * velocity, shape, squarings=squarings)
    fixed, moving = sides_of(pair)
    return pair_of(fixed, moving.at(moved), pair.taught)
