"""The segmentation network: an image of any contrast in, a score for every class out.

A U-Net (Ronneberger et al., MICCAI 2015) at half resolution and below, as the others here: 2×2×2
voxels are folded into channels first, and last the scores of eight voxels are unfolded.
"""

import functools
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxreg.configuration.training import ConvolutionForm
from jaxreg.networks.layers import (
    Conv,
    InstanceNorm,
    Scale,
    fold,
    leaky_relu,
    pad_to_multiple,
    unfold,
)


class Block(nn.Module):
    """Convolution, instance norm, LeakyReLU; what `skip` holds is added before the norm."""

    features: int
    scale: Scale = "same"
    dtype: Any = jnp.float32
    form: ConvolutionForm = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b x y z i"], skip: Float[Array, "b u v w o"] | float = 0.0
    ) -> Float[Array, "b u v w o"]:
        """The features."""
        conv = Conv(self.features, self.scale, False, dtype=self.dtype, form=self.form, name="conv")
        return leaky_relu(InstanceNorm(name="norm")(conv(x) + skip))


class SegmentationUNet(nn.Module):
    """Scores of `classes` at each voxel; `channels` are those at 1/2, 1/4, 1/8 … of the resolution.

    `dtype` and `form` are those of the convolutions (`layers.convolve`); parameters and scores are
    float32.
    """

    channels: tuple[int, ...]
    classes: int
    dtype: Any = jnp.float32
    form: ConvolutionForm = "auto"

    @nn.compact
    def __call__(
        self, image: Float[Array, "b x y z 1"], *, corner: Int[Array, ""] | None = None
    ) -> Float[Array, "b u v w k"]:
        """Scores (logits) of every voxel of an image in [0, 1].

        With `corner`, 0 to 7, those of one voxel of each block of 2×2×2 alone, the one with the
        index `corner` in [x, y, z] order: an eighth of the work of the last layer and of the loss.
        """
        block = functools.partial(Block, dtype=self.dtype, form=self.form)
        conv = functools.partial(Conv, use_bias=False, dtype=self.dtype, form=self.form)
        x = fold(pad_to_multiple(image, 2 ** len(self.channels)))
        skips = []
        for i, features in enumerate(self.channels):
            x = block(features, "same" if i == 0 else "half", name=f"encode{i}")(x)
            x = block(features, name=f"encode{i}b")(x)
            if i < len(self.channels) - 1:
                skips.append(conv(features, name=f"skip{i}")(x))
        for i in reversed(range(len(self.channels) - 1)):
            x = block(self.channels[i], "double", name=f"decode{i}")(x, skips[i])
            x = block(self.channels[i], name=f"decode{i}b")(x)
        scores = self._head(x, corner)
        if corner is not None:
            return scores
        a, b, c = image.shape[1:4]
        return unfold(scores)[:, :a, :b, :c]

    def _head(self, x, corner):
        shape = (x.shape[-1], 8, self.classes)
        init = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2))
        kernel = self.param("head_kernel", init, shape, jnp.float32).astype(self.dtype)
        bias = self.param("head_bias", nn.initializers.zeros, shape[1:], jnp.float32)
        if corner is not None:
            kernel = jax.lax.dynamic_slice_in_dim(kernel, corner, 1, axis=1)
            bias = jax.lax.dynamic_slice_in_dim(bias, corner, 1, axis=0)
        kernel, bias = kernel.reshape(x.shape[-1], -1), bias.reshape(-1)
        scores = jnp.dot(x, kernel, preferred_element_type=jnp.float32)
        return scores + bias[None, None, None, None]


@dataclass(frozen=True)
class SegmentationEncoder:
    """What a segmentation network knows of each voxel, in the place of an autoencoder's `Encoder`.

    One network serves every contrast, so structures look alike whatever the contrast is.
    """

    network: SegmentationUNet

    @property
    def channels(self) -> tuple[int, ...]:
        """Features at each scale, fine to coarse: those of the decoder, at most three scales."""
        return self.network.channels[: min(len(self.network.channels) - 1, 3)]

    @property
    def strides(self) -> tuple[int, ...]:
        """Voxels of the image per voxel of each feature map."""
        return tuple(2 ** (i + 1) for i in range(len(self.channels)))

    def init(self, key: PRNGKeyArray, image: Float[Array, "b x y z 1"]) -> dict[str, Any]:
        """Fresh parameters of the whole network, for a grid that its levels divide."""
        variables = self.network.init(key, image)
        assert isinstance(variables, dict)
        return variables

    def apply(
        self, variables: dict[str, Any], image: Float[Array, "b x y z 1"]
    ) -> tuple[Float[Array, "b u v w c"], ...]:
        """The decoder's feature maps of an image in [0, 1], fine to coarse."""
        wanted = [f"decode{i}b" for i in range(len(self.channels))]
        _, found = self.network.apply(
            variables,
            image,
            capture_intermediates=lambda module, _: module.name in wanted,
            mutable=["intermediates"],
        )
        maps: Any = found["intermediates"]
        return tuple(maps[name]["__call__"][0] for name in wanted)
