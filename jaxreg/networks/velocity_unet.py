"""The registration network: two images and λ in, a stationary velocity field out.

A VoxelMorph-like U-Net (Dalca et al., MedIA 2019) at half resolution and below, conditioned on λ by
conditional instance normalisation (Mok & Chung, MICCAI 2021) or by a hypernetwork that makes its
kernels (Hoopes et al., HyperMorph, IPMI 2021).
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxreg.networks.layers import (
    ConditionalNorm,
    Conv,
    HyperConv,
    InstanceNorm,
    fold,
    leaky_relu,
    pad_to_multiple,
    upsample,
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
    """Convolution, instance norm, LeakyReLU; λ enters the norm (`cin`) or the kernel."""

    features: int
    stride: int = 1
    conditioning: str = "cin"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b x y z i"], context: Float[Array, "b d"] | None
    ) -> Float[Array, "b u v w o"]:
        """Features; `context` is the mapping network's answer to λ, None where λ is not seen."""
        if self.conditioning == "hypernet":
            assert context is not None
            x = HyperConv(self.features, self.stride, name="conv")(x, context)
        else:
            x = Conv(self.features, self.stride, use_bias=False, name="conv")(x)
        if self.conditioning != "cin":
            return leaky_relu(InstanceNorm(name="norm")(x))
        assert context is not None
        return leaky_relu(ConditionalNorm(name="norm")(x, context))


class VelocityUNet(nn.Module):
    """Velocity at half resolution, in voxels of that grid, from a pair of images and λ.

    Attributes:
        channels: features at 1/2, 1/4, 1/8, … of the resolution.
        stem: `fold` puts 2×2×2 voxels of both images into 16 channels; `conv` begins with a
            convolution at full resolution.
        conditioning: `cin` (conditional instance norm), `hypernet` (kernels made from λ) or `none`
            (λ is not seen).
    """

    channels: tuple[int, ...] = (16, 32, 48, 64)
    stem: str = "fold"
    conditioning: str = "cin"

    @nn.compact
    def __call__(
        self,
        fixed: Float[Array, "b x y z 1"],
        moving: Float[Array, "b x y z 1"],
        lam: Float[Array, " b"],
    ) -> Float[Array, "b u v w 3"]:
        """Velocity on a grid of ⌈n/2⌉ voxels along each axis, for any n."""
        size = tuple(-(-n // 2) for n in fixed.shape[1:4])
        x = pad_to_multiple(jnp.concatenate([fixed, moving], -1), 2 ** len(self.channels))
        context = None if self.conditioning == "none" else MappingNetwork(name="mapping")(lam)
        block = functools.partial(Block, conditioning=self.conditioning)
        if self.stem == "fold":
            x = block(self.channels[0], name="encode0")(fold(x), context)
        else:
            x = block(self.channels[0], name="stem")(x, context)
            x = block(self.channels[0], 2, name="encode0")(x, context)
        skips = []
        for i, features in enumerate(self.channels[1:], start=1):
            skips.append(x)
            x = block(features, 2, name=f"encode{i}")(x, context)
            x = block(features, name=f"encode{i}b")(x, context)
        for i in reversed(range(len(skips))):
            x = jnp.concatenate([upsample(x), skips[i]], -1)
            x = block(self.channels[i], name=f"decode{i}")(x, context)
            x = block(self.channels[i], name=f"decode{i}b")(x, context)
        velocity = Conv(3, kernel_init=nn.initializers.normal(1e-4), name="velocity")(x)
        return velocity[:, : size[0], : size[1], : size[2]].astype(jnp.float32)
