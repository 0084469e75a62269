"""Several passes of a network, and its mirrored pair: against the same made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.configuration import CohortConfig, RegistrationConfig
from jaxreg.errors import InputError
from jaxreg.losses.objective import Pair, displacement_of
from jaxreg.losses.settings import ObjectiveConfig
from jaxreg.model import Model, init_params, velocities
from jaxreg.registration.prediction import predicted
from jaxreg.registration.settings import RegisterConfig
from jaxreg.spatial import warp

SHAPE = (24, 20, 16)
LAMS = (0.2, 0.7)


def model_of(*, flip: bool) -> Model:
    """An untrained network whose last layer is large enough to move something."""
    config = RegistrationConfig(
        cohort=CohortConfig(flip=flip), objective=ObjectiveConfig(loss="lncc")
    )
    params = init_params(jax.random.key(0), config, None)
    kernel = params["network"]["decoder"]["velocity"]["kernel"]
    params["network"]["decoder"]["velocity"]["kernel"] = 300 * kernel
    return Model(config, params, {}, 1, (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    fixed, moving = (jnp.asarray(rng.random((*SHAPE, 1)), jnp.float32) for _ in range(2))
    brain = jnp.ones(SHAPE, bool)
    return Pair(fixed, moving, brain, brain)


def network(model, fixed, moving):
    """The network's own answers, all λ at once."""
    answer, _ = velocities(
        model.params["network"],
        fixed,
        moving,
        jnp.asarray(LAMS),
        config=model.config.network,
        squarings=model.config.objective.squarings,
    )
    return answer


def test_one_pass_without_flips_is_the_network(pair):
    model = model_of(flip=False)
    found = predicted(model, pair, LAMS, passes=1)
    np.testing.assert_array_equal(np.stack(found), network(model, pair.fixed, pair.moving))


def test_mirrored_pairs_give_mirrored_velocities(pair):
    """Whatever the network: the mean over both sides commutes with the exchange of the sides."""
    model = model_of(flip=True)
    mirrored = pair._replace(fixed=pair.fixed[::-1], moving=pair.moving[::-1])
    straight = np.stack(predicted(model, pair, LAMS, passes=2))
    other = np.stack(predicted(model, mirrored, LAMS, passes=2))
    assert np.abs(straight).max() > 0.5  # the network moves something
    sides = np.array([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(other[:, ::-1] * sides, straight, atol=1e-4)
    plain = np.asarray(network(model, pair.fixed, pair.moving))
    assert np.abs(plain - straight).max() > 0.05  # which the network alone does not do


def test_later_passes_add_half_of_what_the_moved_pair_still_needs(pair):
    model = model_of(flip=False)
    found = predicted(model, pair, LAMS, passes=3)
    squarings = model.config.objective.squarings
    for i in range(len(LAMS)):
        velocity = network(model, pair.fixed, pair.moving)[i]
        for _ in range(2):
            moved = warp(pair.moving, displacement_of(velocity, SHAPE, squarings=squarings))
            velocity = velocity + 0.5 * network(model, pair.fixed, moved)[i]
        np.testing.assert_allclose(found[i], velocity, atol=1e-4)


def test_no_passes_at_all_are_refused():
    with pytest.raises(InputError, match="--passes: expected more, got 0"):
        RegisterConfig(passes=0)
    with pytest.raises(InputError, match="--passes: not read with --optimize-only"):
        RegisterConfig(passes=2, optimize_only=True)
