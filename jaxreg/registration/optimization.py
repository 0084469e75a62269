"""Direct optimisation of one pair's velocity: the yardstick of a loss, without a network."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxreg.losses.objective import Pair, objective
from jaxreg.losses.settings import ObjectiveConfig
from jaxreg.losses.similarity import Similarity


@functools.partial(jax.jit, static_argnames=("similarity", "config", "steps", "learning_rate"))
def optimize_velocity(
    key: PRNGKeyArray,
    pair: Pair,
    lam: Float[Array, ""],
    start: Float[Array, "u v w 3"],
    similarity: Similarity,
    config: ObjectiveConfig,
    *,
    steps: int = 80,
    learning_rate: float = 0.05,
) -> tuple[Float[Array, "u v w 3"], Float[Array, " steps"]]:
    """(velocity, loss at each step) after Adam on the training objective, from `start`.

    The velocity lives at half resolution, in voxels of that grid, ⌈n/2⌉ along each axis; zeros are
    a good start. `similarity` is what `make_similarity` gives for `config`.
    """
    optimizer = optax.adam(learning_rate)

    def loss(velocity, key):
        return objective(key, pair, velocity, lam, similarity, config)[0]

    def step(carry, key):
        velocity, state = carry
        value, gradient = jax.value_and_grad(loss)(velocity, key)
        updates, state = optimizer.update(gradient, state)
        return (velocity + updates, state), value

    keys = jax.random.split(key, steps)
    (velocity, _), losses = jax.lax.scan(step, (start, optimizer.init(start)), keys)
    return velocity, losses


def half_grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the velocity grid of a volume: ⌈n/2⌉ along each axis."""
    x, y, z = (-(-n // 2) for n in shape)
    return x, y, z


def zero_velocity(shape: tuple[int, ...]) -> Float[Array, "u v w 3"]:
    """The velocity that moves nothing, for a volume of `shape`."""
    return jnp.zeros((*half_grid(shape), 3))
