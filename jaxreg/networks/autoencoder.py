"""Stage 1: one autoencoder per domain, whose encoder becomes a multi-scale feature extractor."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxreg.networks.layers import (
    Conv,
    InstanceNorm,
    fold,
    leaky_relu,
    pad_to_multiple,
    unfold,
    upsample,
)

DEFAULT_CHANNELS = {"fold": (32, 48, 64), "conv": (16, 32, 64)}


class Encoder(nn.Module):
    """Features at three scales: 1/2, 1/4, 1/8 of the resolution (`stem="conv"`: 1, 1/2, 1/4).

    Voxel x of the image lies in voxel x // s of a map at 1/s; maps may end in voxels of padding.
    """

    stem: str = "fold"
    channels: tuple[int, ...] = DEFAULT_CHANNELS["fold"]

    @property
    def strides(self) -> tuple[int, ...]:
        """Voxels of the image per voxel of each feature map."""
        first = 1 if self.stem == "fold" else 0
        return tuple(2 ** (first + i) for i in range(len(self.channels)))

    @nn.compact
    def __call__(self, image: Float[Array, "b x y z 1"]) -> tuple[Float[Array, "b u v w c"], ...]:
        """One feature map a scale, fine to coarse."""
        x = pad_to_multiple(image, self.strides[-1])
        x = fold(x) if self.stem == "fold" else x
        maps = []
        for i, features in enumerate(self.channels):
            x = Conv(features, "same" if i == 0 else "half", use_bias=False, name=f"conv{i}")(x)
            x = leaky_relu(InstanceNorm(name=f"norm{i}")(x))
            maps.append(x)
        return tuple(maps)


class Decoder(nn.Module):
    """An image from the coarsest features alone: no skips, nearest-neighbour upsampling."""

    stem: str = "fold"
    channels: tuple[int, ...] = DEFAULT_CHANNELS["fold"]

    @nn.compact
    def __call__(self, features: Float[Array, "b u v w c"]) -> Float[Array, "b x y z 1"]:
        """The reconstruction, with the encoder's padding."""
        x = features
        for i in reversed(range(len(self.channels))):
            x = Conv(self.channels[i], use_bias=False, name=f"conv{i}")(x)
            x = leaky_relu(InstanceNorm(name=f"norm{i}")(x))
            if i > 0:
                x = upsample(x)
        x = Conv(8 if self.stem == "fold" else 1, name="image")(x)
        return unfold(x) if self.stem == "fold" else x


class Autoencoder(nn.Module):
    """Image → features → image, for one domain."""

    stem: str = "fold"
    channels: tuple[int, ...] = DEFAULT_CHANNELS["fold"]

    @nn.compact
    def __call__(self, image: Float[Array, "b x y z 1"]) -> Float[Array, "b x y z 1"]:
        """The reconstruction of `image`, of the same shape."""
        features = Encoder(self.stem, self.channels, name="encoder")(image)
        decoded = Decoder(self.stem, self.channels, name="decoder")(features[-1])
        x, y, z = image.shape[1:4]
        return decoded[:, :x, :y, :z]
