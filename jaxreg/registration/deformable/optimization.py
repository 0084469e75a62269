"""Direct optimisation of one pair's velocity: the yardstick of a loss, without a network."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.losses.objective import objective
from jaxreg.losses.similarity import Similarity
from jaxreg.pair import Pair

_PARAMETER_RATE = 1e-3
"""Adam's learning rate for what is optimised beside the velocity: the networks' own."""


def optimize_velocity(
    key: PRNGKeyArray,
    pair: Pair,
    lam: Float[Array, ""],
    start: Float[Array, "u v w 3"],
    similarity: Similarity,
    config: ObjectiveConfig,
    *,
    steps: int,
    learning_rate: float,
) -> tuple[Float[Array, "u v w 3"], Float[Array, " steps"]]:
    """(velocity, loss at each step) after Adam on the training objective, from `start`.

    The velocity lives at half resolution, in voxels of that grid, ⌈n/2⌉ along each axis; zeros are
    a good start. `similarity` is what `make_similarity` gives for `config`.
    """
    velocity, _, losses = optimize_jointly(
        key,
        pair,
        lam,
        start,
        None,
        _constant(similarity),
        config,
        steps=steps,
        learning_rate=learning_rate,
    )
    return velocity, losses


@functools.lru_cache(maxsize=16)
def _constant(similarity: Similarity) -> Callable[[Any], Similarity]:
    """The function that gives `similarity` whatever the parameters; one object, compiled once."""
    return lambda _: similarity


@functools.partial(jax.jit, static_argnames=("similarity_of", "config", "steps", "learning_rate"))
def optimize_jointly(
    key: PRNGKeyArray,
    pair: Pair,
    lam: Float[Array, ""],
    start: Float[Array, "u v w 3"],
    parameters: Any,
    similarity_of: Callable[[Any], Similarity],
    config: ObjectiveConfig,
    *,
    steps: int,
    learning_rate: float,
) -> tuple[Float[Array, "u v w 3"], Any, Float[Array, " steps"]]:
    """As `optimize_velocity`, with the parameters of a similarity (NCE's projections) beside v.

    `similarity_of` makes the similarity from them. Returns (velocity, parameters, losses).
    """
    optimizer = optax.adam(1.0)

    def loss(variables, key):
        velocity, parameters = variables
        return objective(key, pair, velocity, lam, similarity_of(parameters), config)[0]

    def step(carry, key):
        (velocity, parameters), state = carry
        value, gradient = jax.value_and_grad(loss)((velocity, parameters), key)
        updates: Any
        updates, state = optimizer.update(gradient, state)
        toward, change = updates
        velocity = velocity + learning_rate * toward
        parameters = jax.tree.map(lambda p, c: p + _PARAMETER_RATE * c, parameters, change)
        return ((velocity, parameters), state), value

    variables = (start, parameters)
    keys = jax.random.split(key, steps)
    ((velocity, parameters), _), losses = jax.lax.scan(
        step, (variables, optimizer.init(variables)), keys
    )
    return velocity, parameters, losses


def half_grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the velocity grid of a volume: ⌈n/2⌉ along each axis."""
    x, y, z = (-(-n // 2) for n in shape)
    return x, y, z


def zero_velocity(shape: tuple[int, ...]) -> Float[Array, "u v w 3"]:
    """The velocity that moves nothing, for a volume of `shape`."""
    return jnp.zeros((*half_grid(shape), 3))
