"""Optimisation of one pair's velocity by Adam.

It begins at zero (--optimize-only) or at a network's answer (refinement).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.losses.objective import objective
from jaxreg.losses.sampling import start_of
from jaxreg.losses.similarity import Similarity
from jaxreg.pair import Pair
from jaxreg.progress import SILENT, Progress
from jaxreg.stored_programs import stored_program

_PARAMETER_RATE = 1e-3
"""Adam's learning rate for what is optimised beside the velocity: the networks' own."""
_STEPS_AT_A_TIME = 5
"""Steps in one call of the compiled loop; between calls the progress is shown."""


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
    progress: Progress = SILENT,
) -> tuple[Float[Array, "u v w 3"], Float[Array, " steps"]]:
    """(velocity, loss at each step) after Adam on the training objective, from `start`.

    The velocity lives at half resolution, in voxels of that grid, ⌈n/2⌉ along each axis; zeros are
    a good start. The objective sees it tapered, as it is used: what the rim loses, the inside can
    make up for. `similarity` is what `make_similarity` gives for `config`.
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
        progress=progress,
    )
    return velocity, losses


def load_steps(
    pair: Pair,
    similarity: Similarity,
    config: ObjectiveConfig,
    *,
    steps: int,
    learning_rate: float,
) -> None:
    """Make ready the program by which `optimize_velocity` optimises a pair of these shapes.

    It is compiled, or fetched from the cache on disk; nothing is optimised. `pair` may have shapes
    and types in the place of arrays.
    """
    variables = jax.eval_shape(lambda: zero_velocity(pair.fixed.shape[:3])), None
    keys = jax.eval_shape(lambda: jax.random.key_data(jax.random.split(jax.random.key(0), steps)))
    losses = jax.ShapeDtypeStruct((steps,), jnp.float32)
    _some_steps.load(
        (0, 1),
        keys,
        pair,
        jax.ShapeDtypeStruct((), jnp.float32),
        (variables, jax.eval_shape(_ADAM.init, variables), losses),
        similarity_of=_constant(similarity),
        config=config,
        learning_rate=learning_rate,
    )


@functools.lru_cache(maxsize=16)
def _constant(similarity: Similarity) -> Callable[[Any], Similarity]:
    """The function that gives `similarity` whatever the parameters; one object, compiled once."""

    def similarity_of(parameters: Any) -> Similarity:
        return similarity

    similarity_of.stored_as = getattr(similarity, "stored_as", None)
    return similarity_of


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
    progress: Progress = SILENT,
) -> tuple[Float[Array, "u v w 3"], Any, Float[Array, " steps"]]:
    """As `optimize_velocity`, with the parameters of a similarity (NCE's projections) beside v.

    `similarity_of` makes the similarity from them. Returns (velocity, parameters, losses).
    """
    variables = (start, parameters)
    state = variables, _ADAM.init(variables), jnp.zeros(steps)
    keys = jax.random.key_data(jax.random.split(key, steps))
    with progress.bar(total=steps, name="optimisation", unit="steps") as bar:
        for first in range(0, steps, _STEPS_AT_A_TIME):
            last = min(first + _STEPS_AT_A_TIME, steps)
            leaves = _some_steps(
                (first, last),
                keys,
                pair,
                lam,
                state,
                similarity_of=similarity_of,
                config=config,
                learning_rate=learning_rate,
            )
            state = jax.tree.unflatten(jax.tree.structure(state), leaves)
            jax.block_until_ready(state)
            bar.update(last - first)
    (velocity, parameters), _, losses = state
    return velocity, parameters, losses


_ADAM = optax.adam(1.0)


@stored_program(static_argnames=("similarity_of", "config", "learning_rate"))
def _some_steps(bounds, keys, pair, lam, state, *, similarity_of, config, learning_rate):
    """The leaves of (variables, state of Adam, losses) after the steps from first to before last.

    Both are values, so one program serves all calls, whatever the number of steps in each.
    """

    def loss(variables, key, number):
        velocity, parameters = variables
        similarity, start = similarity_of(parameters), start_of(number)
        return objective(key, pair, taper(velocity), lam, similarity, config, start=start)[0]

    def step(number, state):
        (velocity, parameters), adam, losses = state
        key = jax.random.wrap_key_data(keys[number])
        value, gradient = jax.value_and_grad(loss)((velocity, parameters), key, number)
        updates: Any
        updates, adam = _ADAM.update(gradient, adam)
        toward, change = updates
        velocity = velocity + learning_rate * toward
        parameters = jax.tree.map(lambda p, c: p + _PARAMETER_RATE * c, parameters, change)
        return (velocity, parameters), adam, losses.at[number].set(value)

    return jax.tree.leaves(jax.lax.fori_loop(bounds[0], bounds[1], step, state))


def half_grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the velocity grid of a volume: ⌈n/2⌉ along each axis."""
    x, y, z = (-(-n // 2) for n in shape)
    return x, y, z


def zero_velocity(shape: tuple[int, ...]) -> Float[Array, "u v w 3"]:
    """The velocity that moves nothing, for a volume of `shape`."""
    return jnp.zeros((*half_grid(shape), 3))


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
