"""The convolution's two arrangements, folding, conditioning, and shapes for any size."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.networks import layers
from jaxreg.networks.autoencoder import Autoencoder, Encoder
from jaxreg.networks.velocity_unet import VelocityUNet


def _apply(module, params, *inputs) -> Any:
    """A module's answer, without Flax's type for mutable collections."""
    return module.apply(params, *inputs)


@pytest.mark.parametrize("scale", ["same", "half", "double"])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 5), (8, 3), (16, 4)])
def test_the_convolution_and_its_gradients_are_the_plain_ones(scale, inputs, outputs, monkeypatch):
    monkeypatch.setattr(layers, "_MANY_VOXELS", 1)
    a, b = jax.random.split(jax.random.key(0))
    x = jax.random.normal(a, (2, 7, 8, 5, inputs))
    kernel = jax.random.normal(b, (3, 3, 3, inputs, outputs))

    def plain(x, kernel):
        x = layers.upsample(x) if scale == "double" else x
        return layers._convolve_plain(x, kernel, 2 if scale == "half" else 1)

    results = []
    for function in (functools.partial(layers.convolve, scale=scale), plain):

        def loss(x, kernel, function=function):
            y = function(x, kernel)
            return jnp.sum(jnp.sin(y)), y

        (_, y), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)
        results.append((y, *grads))
    for got, wanted in zip(*results, strict=True):
        scale = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(got, wanted, atol=1e-4 * scale)  # the order of the sums differs


def test_unfold_undoes_fold_and_a_folded_voxel_holds_two_along_each_axis():
    x = jnp.arange(2 * 4 * 6 * 2 * 3, dtype=jnp.float32).reshape(2, 4, 6, 2, 3)
    folded = layers.fold(x)
    np.testing.assert_array_equal(layers.unfold(folded), x)
    block = x[0, 2:4, 4:6, 0:2].reshape(-1)
    np.testing.assert_array_equal(folded[0, 1, 2, 0], block)


@pytest.mark.parametrize("stem", ["fold", "conv"])
@pytest.mark.parametrize("size", [(16, 16, 16), (17, 20, 11)])
def test_velocity_has_half_the_voxels_and_starts_near_zero(stem, size):
    image = jax.random.uniform(jax.random.key(0), (1, *size, 1))
    network = VelocityUNet(stem=stem)
    params: Any = network.init(jax.random.key(1), image, image, jnp.zeros(1))
    velocity = jax.jit(network.apply)(params, image, image, jnp.full(1, 0.3))
    assert velocity.shape == (1, *(-(-n // 2) for n in size), 3)
    assert 0 < float(jnp.abs(velocity).max()) < 0.05


def test_untrained_conditional_norm_is_instance_norm_and_gamma_adds_to_one():
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3, 2)) * 3 + 1
    context = jax.random.normal(jax.random.key(1), (2, 6))
    norm = layers.ConditionalNorm()
    params: Any = norm.init(jax.random.key(2), x, context)
    plain = layers.instance_norm(x)
    np.testing.assert_allclose(_apply(norm, params, x, context), plain, atol=1e-6)
    bias = jnp.array([0.5, -0.2, 3.0, 4.0])  # γ of two channels, then β
    params["params"]["heads"]["bias"] = bias
    wanted = (1 + bias[:2])[None, None, None, None] * plain + bias[2:][None, None, None, None]
    np.testing.assert_allclose(_apply(norm, params, x, context), wanted, atol=1e-5)


def test_instance_norm_has_mean_0_and_variance_1_and_survives_a_constant():
    x = jax.random.normal(jax.random.key(0), (1, 6, 5, 4, 2)) * 7 + 3
    y = layers.instance_norm(x)
    np.testing.assert_allclose(jnp.mean(y, (1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.var(y, (1, 2, 3)), 1, atol=1e-4)
    gradient = jax.grad(lambda x: jnp.sum(layers.instance_norm(x)))(jnp.ones_like(x))
    assert np.isfinite(gradient).all()


def test_lambda_changes_the_velocity_once_the_heads_are_not_zero():
    image = jax.random.uniform(jax.random.key(0), (1, 16, 16, 16, 1))
    network = VelocityUNet()
    params: Any = network.init(jax.random.key(1), image, image, jnp.zeros(1))
    low, high = (_apply(network, params, image, image, jnp.full(1, v)) for v in (0.0, 1.0))
    np.testing.assert_array_equal(low, high)
    heads = params["params"]["decoder"]["decode0b"]["norm"]["heads"]
    heads["kernel"] = jax.random.normal(jax.random.key(2), heads["kernel"].shape)
    low, high = (_apply(network, params, image, image, jnp.full(1, v)) for v in (0.0, 1.0))
    assert not np.allclose(low, high)


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", ["cin", "hypernet"])
def test_features_of_one_pair_serve_all_lambdas(conditioning):
    network = VelocityUNet(channels=(4, 6, 8), conditioning=conditioning)
    fixed, moving = jax.random.uniform(jax.random.key(0), (2, 1, 10, 16, 8, 1))
    lam = jnp.array([0.1, 0.5, 1.0])
    params: Any = network.init(jax.random.key(1), fixed, moving, lam[:1])
    params = jax.tree.map(lambda p: p + 0.01, params)  # heads that start at zero, too
    features = network.apply(params, fixed, moving, method="encode")
    got: Any = network.apply(params, features, lam, fixed.shape[1:4], method="decode")
    for i in range(3):
        wanted = _apply(network, params, fixed, moving, lam[i : i + 1])
        np.testing.assert_allclose(got[i], wanted[0], atol=1e-5)  # the order of sums differs
    assert not np.allclose(got[0], got[2], atol=1e-3)


@pytest.mark.parametrize(("stem", "strides"), [("fold", (2, 4, 8)), ("conv", (1, 2, 4))])
def test_encoder_maps_have_their_strides_and_the_autoencoder_its_input_shape(stem, strides):
    image = jax.random.uniform(jax.random.key(0), (1, 11, 16, 9, 1))
    encoder, autoencoder = Encoder(stem), Autoencoder(stem)
    assert encoder.strides == strides
    maps = _apply(encoder, encoder.init(jax.random.key(1), image), image)
    for stride, features in zip(strides, maps, strict=True):
        padded = [-(-n // strides[-1]) * strides[-1] for n in image.shape[1:4]]
        assert list(features.shape[1:4]) == [n // stride for n in padded]
    params = autoencoder.init(jax.random.key(2), image)
    assert _apply(autoencoder, params, image).shape == image.shape


@pytest.mark.slow
def test_a_hypernetwork_starts_equal_for_every_lambda_and_learns_to_tell_them_apart():
    network = VelocityUNet(channels=(4, 4), conditioning="hypernet")
    rng = np.random.default_rng(0)
    images = [jnp.asarray(rng.uniform(size=(2, 8, 12, 8, 1)), jnp.float32) for _ in range(2)]
    lam = jnp.array([0.1, 0.9])
    images = [jnp.stack([x[0], x[0]]) for x in images]
    params = network.init(jax.random.key(0), *images, lam)["params"]
    apply = jax.jit(lambda params: network.apply({"params": params}, *images, lam))
    before = apply(params)
    np.testing.assert_allclose(before[0], before[1], atol=1e-7)
    gradient = jax.grad(lambda p: jnp.sum(apply(p)[0] * before[0]))(params)
    assert float(jnp.abs(gradient["decoder"]["bottleneck"]["conv"]["heads"]["kernel"]).max()) > 0
    stepped = jax.tree.map(lambda p, g: p - g / (jnp.abs(g).max() + 1e-12) * 0.1, params, gradient)
    after = apply(stepped)
    assert float(jnp.abs(after[0] - after[1]).max()) > 1e-6


@pytest.mark.parametrize("scale", ["same", "half", "double"])
def test_a_hyper_convolution_is_a_convolution_with_each_samples_own_kernel(scale):
    layer = layers.HyperConv(5, scale, rank=3)
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 5, 2))
    context = jax.random.normal(jax.random.key(1), (2, 4))
    params = layer.init(jax.random.key(2), x, context)["params"]
    heads = {"kernel": jax.random.normal(jax.random.key(3), (3, 270)), "bias": jnp.ones(270)}
    heads = {k: v for k, v in heads.items() if k in params["heads"]}
    params = {**params, "heads": heads}
    got = _apply(layer, {"params": params}, x, context)
    code = context @ params["code"]["kernel"] + params["code"]["bias"][None]
    for b in range(2):
        kernel = params["kernel"] + (code[b] @ heads["kernel"]).reshape(3, 3, 3, 2, 5)
        wanted = layers.convolve(x[b : b + 1], kernel, scale=scale)[0]
        np.testing.assert_allclose(got[b], wanted, atol=1e-4)  # float32 sums over 54 products


@pytest.mark.parametrize("conditioning", ["cin", "hypernet"])
@pytest.mark.parametrize("form", ["plain", "slices", "patches"])
def test_the_velocity_does_not_depend_on_how_convolutions_are_computed(form, conditioning):
    fixed, moving = jax.random.uniform(jax.random.key(0), (2, 1, 8, 12, 8, 1))
    lam = jnp.full(1, 0.3)
    network = VelocityUNet(channels=(4, 8), conditioning=conditioning)
    params: Any = network.init(jax.random.key(1), fixed, moving, lam)
    kernel = params["params"]["decoder"]["velocity"]["kernel"]
    params["params"]["decoder"]["velocity"]["kernel"] = 1000 * kernel
    usual, other = (
        _apply(n, params, fixed, moving, lam) for n in (network, network.clone(form=form))
    )
    assert float(jnp.abs(usual).max()) > 0.1
    np.testing.assert_allclose(other, usual, atol=1e-3)


def test_bfloat16_convolutions_give_nearly_the_same_velocity_in_float32():
    fixed, moving = jax.random.uniform(jax.random.key(0), (2, 1, 24, 16, 16, 1))
    lam = jnp.full(1, 0.3)
    plain = VelocityUNet()
    params: Any = plain.init(jax.random.key(1), fixed, moving, lam)
    kernel = params["params"]["decoder"]["velocity"]["kernel"]
    params["params"]["decoder"]["velocity"]["kernel"] = 1000 * kernel

    def velocity(network, params):
        return jax.jit(lambda p: _apply(network, p, fixed, moving, lam))(params)

    half = VelocityUNet(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(1), fixed, moving, lam)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    wanted, found = velocity(plain, params), velocity(half, params)
    assert found.dtype == jnp.float32
    off = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert 0 < off < 0.05  # eight bits of mantissa through fifteen layers
