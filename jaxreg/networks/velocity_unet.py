"""The registration network: two images and λ in, a stationary velocity field out.

A VoxelMorph-like U-Net (Dalca et al., MedIA 2019) at half resolution and below, conditioned on λ by
conditional instance normalisation (Mok & Chung, MICCAI 2021) or by a hypernetwork that makes its
kernels (Hoopes et al., HyperMorph, IPMI 2021). λ enters at the bottleneck and in the decoder: what
the encoder makes of a pair is computed once for all λ.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxreg.configuration.training import ConvolutionForm, NetworkConfig, channel_numbers
from jaxreg.networks.layers import (
    ConditionalNorm,
    Conv,
    HyperConv,
    InstanceNorm,
    Scale,
    fold,
    leaky_relu,
    pad_to_multiple,
)


class MappingNetwork(nn.Module):
    """λ → a context vector shared by all conditional norms: four dense layers of `features`."""

    features: int = 64

    @nn.compact
    def __call__(self, lam: Float[Array, " b"]) -> Float[Array, "b d"]:
        """The context of each λ in [0, 1]."""
        x = 2 * lam[:, None] - 1
        for i in range(4):
            x = leaky_relu(nn.Dense(self.features, name=f"dense{i}")(x))
        return x


class Block(nn.Module):
    """Convolution, instance norm, LeakyReLU; λ enters the norm (`cin`), the kernel or not at all.

    `scale` is that of the convolution: "same", "half" (stride 2) or "double" (of the features
    upsampled to twice as many voxels).
    """

    features: int
    scale: Scale = "same"
    conditioning: str = "none"
    dtype: Any = jnp.float32
    form: ConvolutionForm = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b x y z i"],
        context: Float[Array, "b d"] | None = None,
        skip: Float[Array, "s u v w o"] | float = 0.0,
    ) -> Float[Array, "b u v w o"]:
        """Features; `context` is the mapping network's answer to λ, None where λ is not seen.

        `skip`, what a convolution made of the encoder's features, is added before the norm; of one
        sample (s = 1), it serves all.
        """
        if self.conditioning == "hypernet":
            assert context is not None
            conv = HyperConv(self.features, self.scale, form=self.form, name="conv")
            x = conv(x.astype(self.dtype), context)
        else:
            settings: Any = {"dtype": self.dtype, "form": self.form}
            x = Conv(self.features, self.scale, False, **settings, name="conv")(x)
        x = x + skip
        if self.conditioning != "cin":
            return leaky_relu(InstanceNorm(name="norm")(x))
        assert context is not None
        return leaky_relu(ConditionalNorm(name="norm")(x, context))


class PairEncoder(nn.Module):
    """What both images show, at 1/2, 1/4, 1/8 … of the resolution; λ has no part in it."""

    channels: tuple[int, ...]
    stem: str
    dtype: Any = jnp.float32
    form: ConvolutionForm = "auto"

    @nn.compact
    def __call__(
        self, fixed: Float[Array, "b x y z 1"], moving: Float[Array, "b x y z 1"]
    ) -> tuple[Float[Array, "b _ _ _ _"], ...]:
        """The decoder's skips, fine to coarse, and last the features above the bottleneck.

        A skip is what the decoder adds to a convolution of its own features: to convolve both
        apart and add them is to convolve them side by side.
        """
        x = pad_to_multiple(jnp.concatenate([fixed, moving], -1), 2 ** len(self.channels))
        block = functools.partial(Block, dtype=self.dtype, form=self.form)
        conv = functools.partial(Conv, use_bias=False, dtype=self.dtype, form=self.form)
        if self.stem == "fold":
            x = block(self.channels[0], name="encode0")(fold(x))
        else:
            x = block(self.channels[0], name="stem")(x)
            x = block(self.channels[0], "half", name="encode0")(x)
        skips = []
        for i, features in enumerate(self.channels[:-1]):
            if i > 0:
                x = block(features, "half", name=f"encode{i}")(x)
                x = block(features, name=f"encode{i}b")(x)
            skips.append(conv(features, name=f"skip{i}")(x))
        return (*skips, x)


class VelocityDecoder(nn.Module):
    """Velocity at each λ from a pair's features."""

    channels: tuple[int, ...]
    conditioning: str
    dtype: Any = jnp.float32
    form: ConvolutionForm = "auto"

    @nn.compact
    def __call__(
        self, features: tuple[Float[Array, "s _ _ _ _"], ...], lam: Float[Array, " b"]
    ) -> Float[Array, "b u v w 3"]:
        """The velocity on the padded grid; features of one pair (s = 1) serve all λ."""
        *skips, x = features
        context = None if self.conditioning == "none" else MappingNetwork(name="mapping")(lam)
        settings: Any = {"conditioning": self.conditioning, "dtype": self.dtype, "form": self.form}
        block = functools.partial(Block, **settings)
        if x.shape[0] < lam.shape[0]:
            x = jnp.broadcast_to(x, (lam.shape[0], *x.shape[1:]))
        x = block(self.channels[-1], "half", name="bottleneck")(x, context)
        x = block(self.channels[-1], name="bottleneckb")(x, context)
        for i, skip in reversed(list(enumerate(skips))):
            x = block(self.channels[i], "double", name=f"decode{i}")(x, context, skip)
            x = block(self.channels[i], name=f"decode{i}b")(x, context)
        start = nn.initializers.normal(1e-4)
        return Conv(3, kernel_init=start, form=self.form, name="velocity")(x)


class VelocityUNet(nn.Module):
    """Velocity at half resolution, in voxels of that grid, from a pair of images and λ.

    Attributes:
        channels: features at 1/2, 1/4, 1/8, … of the resolution.
        stem: `fold` puts 2×2×2 voxels of both images into 16 channels; `conv` begins with a
            convolution at full resolution.
        conditioning: `cin` (conditional instance norm), `hypernet` (kernels made from λ) or `none`
            (λ is not seen).
        dtype: of the convolutions and their features; parameters, the statistics of norms and the
            last convolution, which gives the velocity, are float32.
        form: how convolutions are computed (`layers.convolve`).
    """

    channels: tuple[int, ...] = channel_numbers(NetworkConfig.channels)
    stem: str = "fold"
    conditioning: str = "cin"
    dtype: Any = jnp.float32
    form: ConvolutionForm = "auto"

    def setup(self) -> None:
        """The two halves; λ enters the second."""
        self.encoder = PairEncoder(self.channels, self.stem, self.dtype, self.form)
        self.decoder = VelocityDecoder(self.channels, self.conditioning, self.dtype, self.form)

    def __call__(
        self,
        fixed: Float[Array, "b x y z 1"],
        moving: Float[Array, "b x y z 1"],
        lam: Float[Array, " b"],
    ) -> Float[Array, "b u v w 3"]:
        """Velocity on a grid of ⌈n/2⌉ voxels along each axis, for any n."""
        return self.decode(self.encode(fixed, moving), lam, fixed.shape[1:4])

    def encode(
        self, fixed: Float[Array, "b x y z 1"], moving: Float[Array, "b x y z 1"]
    ) -> tuple[Float[Array, "b _ _ _ _"], ...]:
        """What `decode` needs of each pair."""
        return self.encoder(fixed, moving)

    def decode(
        self,
        features: tuple[Float[Array, "s _ _ _ _"], ...],
        lam: Float[Array, " b"],
        shape: tuple[int, ...],
    ) -> Float[Array, "b u v w 3"]:
        """The velocity at each λ of images of `shape`; features of one pair serve all λ."""
        x, y, z = (-(-n // 2) for n in shape)
        return self.decoder(features, lam)[:, :x, :y, :z].astype(jnp.float32)
