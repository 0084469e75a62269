"""The velocity of a registration: a map that ends at zero, and λ of its refinement."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.registration import REFINE_SMOOTHNESS
from jaxreg.losses.objective import objective
from jaxreg.losses.sampling import start_of
from jaxreg.losses.similarity import make_similarity
from jaxreg.pair import Pair
from jaxreg.registration.deformable.deformation import refined_lam, taper
from jaxreg.registration.deformable.optimization import optimize_velocity, zero_velocity
from jaxreg.spatial import displacement_of


def test_a_tapered_map_ends_at_zero_and_keeps_the_inside():
    velocity = jax.random.normal(jax.random.key(0), (12, 10, 14, 3))
    tapered = jax.jit(taper)(velocity)
    np.testing.assert_array_equal(tapered[2:-2, 2:-2, 2:-2], velocity[2:-2, 2:-2, 2:-2])
    u = np.asarray(displacement_of(tapered, (24, 20, 28), squarings=7))
    for axis in range(3):
        for side in (0, -1):
            assert np.abs(np.take(u, side, axis=axis)).max() == 0
    np.testing.assert_allclose(tapered[1, 5, 5], velocity[1, 5, 5] / 2, rtol=1e-6)


def test_the_objective_sees_the_velocity_as_it_is_used():
    """What is optimised without the taper and cut afterwards fits less well than this."""
    random = np.random.default_rng(0)
    image = gaussian_filter(random.random((24, 20, 28)), 1.5)
    image = jnp.asarray((image - image.min()) / np.ptp(image), jnp.float32)[..., None]
    brain = jnp.ones(image.shape[:3], bool)
    pair = Pair(image, jnp.roll(image, 1, axis=0), brain, brain)  # a brain that reaches the border
    config, lam = ObjectiveConfig(loss="mse"), jnp.float32(0.1)
    similarity = make_similarity(config, ("fixed", "moving"))

    def loss(velocity):
        return objective(jax.random.key(1), pair, velocity, lam, similarity, config)[0]

    start = zero_velocity(image.shape[:3])
    found, losses = optimize_velocity(
        jax.random.key(0), pair, lam, start, similarity, config, steps=30, learning_rate=0.05
    )
    np.testing.assert_allclose(losses[0], jax.jit(loss)(start), rtol=1e-5)
    assert float(jax.jit(loss)(taper(found))) < 0.9 * float(losses[0])
    # The outermost voxels have no say in the map, so nothing moves them.
    for axis in range(3):
        assert np.abs(np.take(np.asarray(found), 0, axis=axis)).max() == 0


def test_an_optimisation_sees_the_voxels_in_turn_and_no_draw_decides():
    random = np.random.default_rng(1)
    images = [gaussian_filter(random.random((16, 12, 14)), 1) for _ in range(2)]
    fixed, moving = (jnp.asarray(x / x.max(), jnp.float32)[..., None] for x in images)
    labels = [jnp.asarray(x > np.median(x), jnp.uint8) for x in images]
    brain = jnp.ones(fixed.shape[:3], bool)
    pair = Pair(fixed, moving, brain, brain, fixed_labels=labels[0], moving_labels=labels[1])
    config = ObjectiveConfig(loss="lncc", lncc_stride=2, label_weight=8.0)
    similarity = make_similarity(config, ("fixed", "moving"))
    lam, start = jnp.float32(0.3), zero_velocity(fixed.shape[:3])
    settings: Any = dict(steps=9, learning_rate=1e-6)  # so small that all steps see the same map
    one, other = (
        optimize_velocity(jax.random.key(k), pair, lam, start, similarity, config, **settings)[1]
        for k in (0, 1)
    )
    np.testing.assert_array_equal(one, other)
    wanted = [
        objective(jax.random.key(5), pair, start, lam, similarity, config, start=start_of(step))[0]
        for step in range(9)
    ]
    np.testing.assert_allclose(one, wanted, rtol=1e-3)
    assert len({f"{value:.3f}" for value in wanted}) > 5  # other voxels have another loss


def test_a_guided_refinement_weighs_roughness_less_and_keeps_the_ends_of_lam():
    assert refined_lam(0.0) == 0 and refined_lam(1.0) == 1
    for lam in (0.2, 0.5, 0.9):
        weight = refined_lam(lam) / (1 - refined_lam(lam))  # of roughness against likeness
        np.testing.assert_allclose(weight, REFINE_SMOOTHNESS * lam / (1 - lam))
