"""The segmentation network: shapes, sub-voxels, the forms of its convolutions, its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.configuration.training import SEGMENTATION_CHANNELS
from jaxreg.data.label_codes import CLASSES
from jaxreg.networks.layers import convolve, unfold
from jaxreg.networks.segmentation_unet import SegmentationEncoder, SegmentationUNet


@pytest.fixture(scope="module")
def network_and_params():
    network = SegmentationUNet((4, 6), 5)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    params["head_bias"] = jax.random.normal(jax.random.key(1), params["head_bias"].shape)
    return network, params


def test_scores_of_one_corner_are_those_of_every_second_voxel(network_and_params):
    network, params = network_and_params
    image = jax.random.uniform(jax.random.key(2), (2, 8, 12, 16, 1))
    apply = jax.jit(lambda corner: network.apply({"params": params}, image, corner=corner))
    everywhere = jax.jit(network.apply)({"params": params}, image)
    assert everywhere.shape == (2, 8, 12, 16, 5) and everywhere.dtype == jnp.float32
    for corner, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
        np.testing.assert_allclose(apply(corner), everywhere[:, i::2, j::2, k::2], atol=1e-5)


def test_any_size_is_padded_behind_and_cropped_again(network_and_params):
    network, params = network_and_params
    image = jax.random.uniform(jax.random.key(3), (1, 7, 9, 10, 1))
    filled = jnp.pad(image, [(0, 0), (0, 1), (0, 3), (0, 2), (0, 0)])
    scores = jax.jit(network.apply)({"params": params}, image)
    expected = jax.jit(network.apply)({"params": params}, filled)[:, :7, :9, :10]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_half_precision_gives_nearly_the_same_scores(network_and_params):
    network, params = network_and_params
    image = jax.random.uniform(jax.random.key(4), (1, 16, 16, 16, 1))
    half = network.clone(dtype=jnp.bfloat16)
    exact = jax.jit(network.apply)({"params": params}, image)
    rough = jax.jit(half.apply)({"params": params}, image)
    assert rough.dtype == jnp.float32
    # bfloat16 has 8 bits of mantissa, and there are seven convolutions one after another.
    assert float(jnp.abs(rough - exact).mean()) < 0.05 * float(jnp.std(exact))


@pytest.mark.parametrize("scale", ["same", "half", "double"])
@pytest.mark.parametrize("form", ["plain", "slices", "patches"])
def test_every_form_of_a_convolution_is_the_same_convolution(form, scale):
    key, other = jax.random.split(jax.random.key(5))
    x = jax.random.normal(key, (2, 6, 5, 8, 9))
    kernel = jax.random.normal(other, (3, 3, 3, 9, 4))

    def total(x, kernel, form):
        y = convolve(x, kernel, scale=scale, form=form)
        return jnp.sum(jnp.sin(y)), y

    gradient = jax.jit(jax.grad(total, (0, 1), has_aux=True), static_argnums=2)
    (d_x, d_kernel), y = gradient(x, kernel, form)
    (e_x, e_kernel), expected = gradient(x, kernel, "auto")
    np.testing.assert_allclose(y, expected, atol=2e-4)  # sums of 243 products of order 1
    np.testing.assert_allclose(d_x, e_x, atol=2e-3)
    np.testing.assert_allclose(d_kernel, e_kernel, atol=5e-3)


def test_both_networks_together_fit_into_eight_megabytes_of_half_precision():
    count = 0
    for channels in SEGMENTATION_CHANNELS.values():
        network = SegmentationUNet(channels, CLASSES)
        like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 16, 1)))
        count += sum(leaf.size for leaf in jax.tree.leaves(like))
    assert 2 * count <= 8 * 2**20


def test_the_encoder_gives_what_the_head_sees(network_and_params):
    network, params = network_and_params
    encoder = SegmentationEncoder(network)
    image = jax.random.uniform(jax.random.key(2), (1, 20, 17, 24, 1))
    maps = jax.jit(encoder.apply)({"params": params}, image)
    assert len(maps) == len(encoder.channels) == len(encoder.strides)
    for features, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert features.shape[-1] == channels and features.shape[1] * stride >= image.shape[1]
    scores = jnp.einsum("bxyzi,iko->bxyzko", maps[0], params["head_kernel"])
    scores = scores + params["head_bias"][None, None, None, None]
    found = unfold(scores.reshape(*scores.shape[:4], -1))[:, :20, :17, :24]
    np.testing.assert_allclose(found, network.apply({"params": params}, image), atol=1e-4)
