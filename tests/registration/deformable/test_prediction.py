"""Several passes of a network, and its mirrored pair: against the same made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import model_of

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.training import RegistrationConfig
from jaxreg.errors import InputError
from jaxreg.losses.intensity import lncc
from jaxreg.losses.objective import moved_and_masks
from jaxreg.losses.regularizers import diffusion
from jaxreg.models import model as model_module
from jaxreg.models.model import (
    network_of,
    velocities,
)
from jaxreg.pair import Pair
from jaxreg.registration.deformable.prediction import predicted
from jaxreg.spatial import displacement_of, warp
from jaxreg.training.registration import sample_loss

SHAPE = (24, 20, 16)
LAMS = (0.2, 0.7)


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    fixed, moving = (jnp.asarray(rng.random((*SHAPE, 1)), jnp.float32) for _ in range(2))
    brain = jnp.ones(SHAPE, bool)
    return Pair(fixed, moving, brain, brain)


def network(model, fixed, moving):
    """The network's own answers, all λ at once."""
    params, config = model.params["network"], model.config.network
    [(_, answers)] = velocities(params, fixed, moving, LAMS, config=config)
    return answers


def test_one_pass_without_flips_is_the_network(pair):
    model = model_of(flip=False)
    found = list(predicted(model, pair, LAMS, passes=1))
    np.testing.assert_array_equal(np.stack(found), network(model, pair.fixed, pair.moving))


def test_chunks_of_lam_are_the_whole_and_the_pair_is_encoded_once(pair, monkeypatch):
    model = model_of(flip=False)
    lams = [0.1, 0.4, 0.9]
    params, config = model.params["network"], model.config.network
    [(_, whole)] = velocities(params, pair.fixed, pair.moving, lams, config=config)
    encode, encoded = model_module._encoded, []
    monkeypatch.setattr(model_module, "chunk_size", lambda shape, config: 2)
    monkeypatch.setattr(
        model_module, "_encoded", lambda *a, **b: encoded.append(1) or encode(*a, **b)
    )
    chunks = list(velocities(params, pair.fixed, pair.moving, lams, config=config))
    assert [chunk for chunk, _ in chunks] == [[0.1, 0.4], [0.9]]
    assert [len(found) for _, found in chunks] == [2, 2]  # the last is filled up
    np.testing.assert_allclose(chunks[0][1], whole[:2], atol=1e-5)
    np.testing.assert_allclose(chunks[1][1][0], whole[2], atol=1e-5)
    assert encoded == [1]


def test_one_lam_alone_is_what_it_is_among_others(pair):
    model, rng = model_of(flip=False), np.random.default_rng(3)
    config = model.config.network
    params = jax.tree.map(  # a network that has just been made does not heed λ
        lambda p: p + jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype), model.params["network"]
    )
    [(_, several)] = velocities(params, pair.fixed, pair.moving, LAMS, config=config)
    [(lams, alone)] = velocities(params, pair.fixed, pair.moving, LAMS[:1], config=config)
    assert lams == list(LAMS[:1]) and alone.shape == (1, *several.shape[1:])
    assert np.abs(several[0] - several[1]).max() > 0.1
    np.testing.assert_allclose(alone[0], several[0], atol=1e-5)


def test_mirrored_pairs_give_mirrored_velocities(pair):
    """Whatever the network: the mean over both sides commutes with the exchange of the sides."""
    model = model_of(flip=True)
    mirrored = pair._replace(fixed=pair.fixed[::-1], moving=pair.moving[::-1])
    straight = np.stack(list(predicted(model, pair, LAMS, passes=2)))
    other = np.stack(list(predicted(model, mirrored, LAMS, passes=2)))
    assert np.abs(straight).max() > 0.5  # the network moves something
    sides = np.array([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(other[:, ::-1] * sides, straight, atol=1e-4)
    plain = np.asarray(network(model, pair.fixed, pair.moving))
    assert np.abs(plain - straight).max() > 0.05  # which the network alone does not do


@pytest.mark.parametrize("lacking", [(1, 0, 0), (0, 1, 0), (1, 1, 1)])
def test_a_grid_of_odd_axes_gives_what_it_gives_with_a_layer_of_background(lacking):
    rng = np.random.default_rng(2)
    shape = (23, 21, 17)
    widths = [(0, n) for n in lacking]
    fixed, moving = (jnp.asarray(rng.random((*shape, 1)), jnp.float32) for _ in range(2))
    brain = jnp.ones(shape, bool)
    longer, more = (jnp.pad(image, [*widths, (0, 0)]) for image in (fixed, moving))
    even = Pair(longer, more, jnp.pad(brain, widths), jnp.pad(brain, widths))
    model = model_of(flip=True)
    (found,) = predicted(model, Pair(fixed, moving, brain, brain), [0.5], passes=1)
    (wanted,) = predicted(model, even, [0.5], passes=1)
    assert found.shape == (12, 11, 9, 3) and np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(("second_pass", "share"), [(0.0, 0.5), (0.4, 1.0)])
def test_later_passes_add_what_the_moved_pair_still_needs(pair, second_pass, share):
    """Half of it, or the whole where the network was trained to be asked again."""
    model = model_of(flip=False, second_pass=second_pass)
    found = list(predicted(model, pair, LAMS, passes=3))
    squarings = model.config.objective.squarings
    for i in range(len(LAMS)):
        velocity = network(model, pair.fixed, pair.moving)[i]
        for _ in range(2):
            moved = warp(pair.moving, displacement_of(velocity, SHAPE, squarings=squarings))
            velocity = velocity + share * network(model, pair.fixed, moved)[i]
        np.testing.assert_allclose(found[i], velocity, atol=1e-4)


def test_training_on_second_passes_takes_the_gradient_of_the_later_answer(pair):
    """At --second-pass-fraction=1, against the same by hand: v = the earlier answer + the later."""
    model = model_of(flip=False, second_pass=1.0)
    sample = {name: value for name, value in pair._asdict().items() if value is not None}
    of_sample = sample_loss(model.config, None, spacing_mm=model.spacing_mm)
    loss = jax.jit(jax.value_and_grad(of_sample, has_aux=True))
    (found, terms), gradient = loss(model.params, {}, sample, jax.random.key(3))
    objective, lam = model.config.objective, terms["lam"]

    def answer(params, moving):
        variables = {"params": params["network"]}
        images = pair.fixed[None], moving[None]
        return network_of(model.config.network).apply(variables, *images, lam[None])[0]

    @jax.jit
    @jax.value_and_grad
    def by_hand(params):
        before = answer(model.params, pair.moving)
        shift = displacement_of(before, SHAPE, squarings=objective.squarings)
        velocity = before + answer(params, warp(pair.moving, shift))
        moved, masks = moved_and_masks(pair, velocity, objective)
        unlike = 8 * lncc(
            pair.fixed, moved, masks.brain, weight=masks.common, window=7, epsilon=1e-5
        )
        return (1 - lam) * unlike + lam * diffusion(velocity)

    wanted, wanted_gradient = by_hand(model.params)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for mine, other in zip(*map(jax.tree.leaves, (gradient, wanted_gradient)), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4 * np.abs(other).max() + 1e-7)


def test_training_on_second_passes_shows_some_pairs_as_they_lie(pair):
    sample = {name: value for name, value in pair._asdict().items() if value is not None}
    keys = jax.random.split(jax.random.key(0), 12)
    losses = []
    for share in (0.0, 0.5, 1.0):
        model = model_of(flip=False, second_pass=share)
        loss = jax.jit(sample_loss(model.config, None, spacing_mm=model.spacing_mm))
        losses.append([float(loss(model.params, {}, sample, key)[0]) for key in keys])
    never, some, always = np.array(losses)
    lies, moved = (np.isclose(some, other, rtol=1e-5) for other in (never, always))
    np.testing.assert_array_equal(lies, ~moved)
    assert 1 < lies.sum() < 11


def test_no_passes_at_all_are_refused():
    with pytest.raises(InputError, match="--passes: expected at least 1, got 0"):
        RegisterConfig(passes=0)
    with pytest.raises(InputError, match="--passes: not read with --optimize-only"):
        RegisterConfig(passes=2, optimize_only=True)
    with pytest.raises(
        InputError, match=r"--second-pass-fraction: expected a share in \[0, 1\], got 2.0"
    ):
        RegistrationConfig(second_pass_fraction=2.0)
