"""The building blocks of every network: the one 3-D convolution, norms, folding, upsampling."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jaxreg.configuration.training import ConvolutionForm

NEGATIVE_SLOPE = 0.2
Scale = Literal["same", "half", "double"]
"""What a convolution does to the number of voxels along each axis."""
_MANY_VOXELS = 4096
"""From so many on, the kernels for pairs of voxels cost less than they save."""
_LAYOUT_3D = ("NXYZC", "XYZIO", "NXYZC")
_LAYOUT_2D = ("NYZC", "YZIO", "NYZC")


def convolve(
    x: Float[Array, "b x y z i"],
    kernel: Float[Array, "3 3 3 i o"],
    *,
    scale: Scale = "same",
    form: ConvolutionForm = "auto",
) -> Float[Array, "b u v w o"]:
    """3×3×3 convolution, zero-padded by one voxel on every side.

    `half` takes every second voxel (stride 2); `double` convolves x upsampled to twice as many
    voxels. On CPUs XLA's own 3-D convolution reaches a third of the speed of its 2-D one, so there
    it is the sum of 2-D convolutions over slices of constant x, and the upsampled voxels, eight of
    a value, are never made; equal to float32 rounding. On other platforms it is XLA's. A `form`
    other than `auto` holds on every platform: XLA's (`plain`), the sum over slices, or one matrix
    product with the 27 neighbours side by side (`patches`).
    """
    if form != "auto":
        function = {
            "plain": _convolve_plain,
            "slices": _convolve_slices,
            "patches": _convolve_patches,
        }[form]
        if scale == "double":
            return function(upsample(x), kernel, 1)
        return function(x, kernel, 1 if scale == "same" else 2)
    if scale == "double":
        return jax.lax.platform_dependent(
            x,
            kernel,
            cpu=_convolve_upsampled
            if np.prod(x.shape[1:4]) >= _MANY_VOXELS
            else _upsample_convolve,
            default=lambda x, kernel: _convolve_plain(upsample(x), kernel, 1),
        )
    stride = 1 if scale == "same" else 2
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _convolve_slices(x, kernel, stride),
        default=lambda x, kernel: _convolve_plain(x, kernel, stride),
    )


def _convolve_plain(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,) * 3, [(1, 1)] * 3, dimension_numbers=_LAYOUT_3D
    )


def _convolve_2d(x, kernel, stride):
    """2-D convolution of every x-slice of [b, x, y, z, i] with [3, 3, i, o]."""
    slices = x.reshape((-1, *x.shape[2:]))
    y = jax.lax.conv_general_dilated(
        slices, kernel, (stride,) * 2, [(1, 1)] * 2, dimension_numbers=_LAYOUT_2D
    )
    return y.reshape((*x.shape[:2], *y.shape[1:]))


def _convolve_slices(x, kernel, stride):
    n, features = x.shape[1], kernel.shape[-1]
    pad_x = ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0))
    if stride == 1 and x.shape[-1] >= 8:
        # One 2-D convolution gives the three slices' contributions; shifted, they are summed.
        y = _convolve_2d(x, jnp.concatenate(list(kernel), axis=-1), 1)
        y = jnp.pad(y, pad_x)
        a, b, c = (y[:, k : k + n, ..., k * features : (k + 1) * features] for k in range(3))
        return a + b + c
    n_out = -(-n // stride)
    padded = jnp.pad(x, pad_x)
    shifted = [padded[:, k : k + stride * (n_out - 1) + 1 : stride] for k in range(3)]
    if x.shape[-1] < 8:
        # With few input channels one convolution of the neighbouring slices as channels is faster.
        joint = jnp.concatenate(shifted, axis=-1)
        return _convolve_2d(joint, jnp.concatenate(list(kernel), axis=2), stride)
    a, b, c = (_convolve_2d(s, kernel[k], stride) for k, s in enumerate(shifted))
    return a + b + c


def _convolve_patches(x, kernel, stride):
    """One matrix product a voxel with its 27 neighbours, for devices that are good at those."""
    sizes = [-(-n // stride) for n in x.shape[1:4]]
    padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)])
    stops = [stride * (n - 1) + 1 for n in sizes]
    neighbours = [
        padded[:, i : i + stops[0] : stride, j : j + stops[1] : stride, k : k + stops[2] : stride]
        for i, j, k in np.ndindex(3, 3, 3)
    ]
    return jnp.dot(jnp.concatenate(neighbours, axis=-1), kernel.reshape(-1, kernel.shape[-1]))


def _upsample_convolve(x, kernel):
    return _convolve_slices(upsample(x), kernel, 1)


@jax.custom_vjp
def _convolve_upsampled(x, kernel):
    """The convolution of `upsample(x)` from x alone, with 8 products a voxel instead of 27.

    Of three neighbours on the fine grid two are copies of one coarse voxel: along an axis the even
    voxels 2i see the coarse voxels i − 1 and i, the odd ones i and i + 1, each pair with a kernel
    of two taps. One 2-D convolution gives both taps along x for all eight kinds of voxel.
    """
    features = kernel.shape[-1]
    taps = jnp.asarray([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], kernel.dtype)
    # [odd x, tap x, odd y, tap y, odd z, tap z, i, o] -> [tap y, tap z, i, (odd x y z, tap x, o)]
    pairs = jnp.einsum("aci,bdj,efk,ijkmn->acbdefmn", taps, taps, taps, kernel)
    pairs = pairs.transpose(3, 5, 6, 0, 2, 4, 1, 7).reshape(2, 2, kernel.shape[3], -1)
    b, n_x, n_y, n_z, _ = x.shape
    slices = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0))).reshape(-1, *x.shape[2:])
    y = jax.lax.conv_general_dilated(
        slices, pairs, (1, 1), [(1, 1)] * 2, dimension_numbers=_LAYOUT_2D
    )
    y = y.reshape(b, n_x + 2, n_y + 1, n_z + 1, 2, 2, 2, 2, features)
    voxels = [
        sum(y[:, i + t : i + t + n_x, j : j + n_y, k : k + n_z, i, j, k, t] for t in range(2))
        for i, j, k in np.ndindex(2, 2, 2)
    ]
    return unfold(jnp.concatenate(voxels, axis=-1))


def _convolve_upsampled_backward(residuals, cotangent):
    """By the upsampled voxels: XLA's gradient of the 2×2 convolution takes three times as long."""
    return jax.vjp(_upsample_convolve, *residuals)[1](cotangent)


_convolve_upsampled.defvjp(
    lambda x, kernel: (_convolve_upsampled(x, kernel), (x, kernel)), _convolve_upsampled_backward
)


class Conv(nn.Module):
    """3×3×3 convolution; `[b, x, y, z, i] -> [b, u, v, w, features]`, u = x at scale "same"."""

    features: int
    scale: Scale = "same"
    use_bias: bool = True
    kernel_init: Callable[..., Any] = nn.initializers.he_normal()
    dtype: Any = jnp.float32
    form: ConvolutionForm = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b x y z i"]) -> Float[Array, "b u v w o"]:
        """The convolved features, in `dtype`; parameters stay float32."""
        shape = (3, 3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = convolve(
            x.astype(self.dtype), kernel.astype(self.dtype), scale=self.scale, form=self.form
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None, None]
        return y


class HyperConv(nn.Module):
    """3×3×3 convolution whose kernel a hypernetwork makes from λ (HyperMorph's last layer).

    The kernel is one that all λ share plus a linear function of `rank` numbers drawn from the
    context; HyperMorph takes all 64 of its context, which makes the network four times larger. The
    function starts at zero, so that an untrained network answers every λ alike.
    """

    features: int
    scale: Scale = "same"
    rank: int = 16
    form: ConvolutionForm = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b x y z i"], context: Float[Array, "b d"]
    ) -> Float[Array, "b u v w o"]:
        """The features of each sample under its own kernel, without bias."""
        shape = (3, 3, 3, x.shape[-1], self.features)
        base = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        code = nn.Dense(self.rank, name="code")(context)
        change = nn.Dense(base.size, False, kernel_init=nn.initializers.zeros, name="heads")(code)
        kernels = (base.reshape(1, -1) + change).reshape(-1, *shape).astype(x.dtype)
        return jax.lax.map(
            lambda pair: convolve(pair[0][None], pair[1], scale=self.scale, form=self.form)[0],
            (x, kernels),
        )


def instance_norm(x: Float[Array, "b x y z c"], *, epsilon: float = 1e-5) -> Array:
    """`x` with mean 0 and variance 1 over the voxels of each sample and channel."""
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True, dtype=jnp.float32)
    variance = jnp.mean(jnp.square(x - mean), axis=(1, 2, 3), keepdims=True, dtype=jnp.float32)
    return ((x - mean) * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)


class InstanceNorm(nn.Module):
    """Instance normalisation with a learned scale and offset per channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "b x y z c"]) -> Float[Array, "b x y z c"]:
        """Scale · IN(x) + offset."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        offset = self.param("offset", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        scale, offset = (p.astype(x.dtype)[None, None, None, None] for p in (scale, offset))
        return instance_norm(x) * scale + offset


class ConditionalNorm(nn.Module):
    """(1 + γ(λ)) · IN(x) + β(λ): Mok & Chung, MICCAI 2021; plain instance norm when untrained."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b x y z c"], context: Float[Array, "b d"]
    ) -> Float[Array, "b x y z c"]:
        """`context` is the mapping network's answer to λ; its zero-started heads give γ and β."""
        heads = nn.Dense(2 * x.shape[-1], kernel_init=nn.initializers.zeros, name="heads")(context)
        gamma, beta = jnp.split(heads[:, None, None, None, :].astype(x.dtype), 2, axis=-1)
        return (1 + gamma) * instance_norm(x) + beta


def leaky_relu(x: Array) -> Array:
    """LeakyReLU with the slope of every network here."""
    return nn.leaky_relu(x, NEGATIVE_SLOPE)


def fold(x: Shaped[Array, "b x y z c"]) -> Shaped[Array, "b u v w d"]:
    """2×2×2 voxels folded into channels, d = 8c; sizes must be even. `unfold` is its inverse."""
    b, x_size, y_size, z_size, c = x.shape
    x = x.reshape(b, x_size // 2, 2, y_size // 2, 2, z_size // 2, 2, c)
    return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(
        b, x_size // 2, y_size // 2, z_size // 2, 8 * c
    )


def unfold(x: Float[Array, "b u v w d"]) -> Float[Array, "b x y z c"]:
    """Channels unfolded into 2×2×2 voxels."""
    b, u, v, w, d = x.shape
    x = x.reshape(b, u, v, w, 2, 2, 2, d // 8).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, 2 * u, 2 * v, 2 * w, d // 8)


def upsample(x: Float[Array, "b u v w c"]) -> Float[Array, "b x y z c"]:
    """Twice as many voxels along each axis, nearest neighbour."""
    b, u, v, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :, None, :], (b, u, 2, v, 2, w, 2, c))
    return x.reshape(b, 2 * u, 2 * v, 2 * w, c)


def pad_to_multiple(x: Float[Array, "b x y z c"], multiple: int) -> Float[Array, "b u v w c"]:
    """`x` with zeros behind its last voxels, up to the next multiple along each axis."""
    widths = [(0, -n % multiple) for n in x.shape[1:4]]
    return jnp.pad(x, [(0, 0), *widths, (0, 0)])
