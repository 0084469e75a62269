"""MIND-SSC: the modality independent neighbourhood descriptor with self-similarity context.

Heinrich et al., MICCAI 2013: each voxel is described by how alike the patches around it are, which
no linear map of the intensities changes. The normalisation is that of ConvexAdam's code (Siebert
et al., 2021/2024).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxreg.losses.intensity import masked_mean

_NEIGHBOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (0, -1, 0), (-1, 0, 0))
PAIRS = tuple((a, b) for a, b in itertools.combinations(_NEIGHBOURS, 2) if np.dot(a, b) == 0)
"""The 12 channels: pairs of the six neighbours of a voxel that are √2 apart, opposite ones not."""
_FLAT = 1e-8
"""Variance that is always a flat patch's: squared differences of 1e-4 of the intensity range."""


def mind(
    fixed: Float[Array, "x y z 1"],
    moved: Float[Array, "x y z 1"],
    mask: Bool[Array, "x y z"],
    *,
    radius: int,
    dilation: int,
) -> Float[Array, ""]:
    """Mean squared difference of both descriptors over the mask and the 12 channels, in [0, 1].

    0 for images that a linear map of the intensities relates. An empty mask gives 0.
    """
    channels = (_descriptor(image[..., 0], radius, dilation) for image in (fixed, moved))
    squares = [jnp.square(f - m) for f, m in zip(*channels, strict=True)]
    return masked_mean(functools.reduce(jnp.add, squares) / len(PAIRS), mask)


def mind_ssc(
    image: Float[Array, "x y z 1"], *, radius: int, dilation: int
) -> Float[Array, "x y z 12"]:
    """Descriptor of each voxel, a channel for each of `PAIRS`, in (0, 1], 1 for the nearest pair.

    exp(−(Dᵢ − minⱼ Dⱼ)/V), with Dᵢ the mean squared difference of the two patches of pair i: cubes
    of side 2·`radius` + 1 around neighbours `dilation` voxels off, edge-clamped. V is the mean over
    the channels of what the exponent divides, clamped to 0.001 … 1000 times its mean over the
    image, as in ConvexAdam. Three departures: that mean is differentiated too, so that the gradient
    is the loss's; V is at least 1e-8, so that a constant image has a descriptor (1 everywhere); and
    outside the grid the image is continued, where ConvexAdam continues the squared differences.
    """
    return jnp.stack(_descriptor(image[..., 0], radius, dilation), axis=-1)


def _descriptor(image, radius, dilation):
    """`mind_ssc` of [x, y, z], its 12 channels as a list."""
    distances = _patch_distances(image, radius, dilation)
    nearest = _minimum(distances)
    variance = functools.reduce(jnp.add, [d - nearest for d in distances]) / len(PAIRS)
    typical = jnp.mean(variance)
    variance = jnp.maximum(jnp.clip(variance, 1e-3 * typical, 1e3 * typical), _FLAT)
    return [jnp.exp(-(d - nearest) / variance) for d in distances]


@jax.custom_vjp
def _minimum(volumes):
    """Voxel-wise minimum; those that tie share its gradient.

    The gradient is written out: XLA would follow the chain of minima anew for each channel.
    """
    return functools.reduce(jnp.minimum, volumes)


def _minimum_forward(volumes):
    minimum = _minimum(volumes)
    return minimum, (volumes, minimum)


def _minimum_backward(residuals, cotangent):
    volumes, minimum = residuals
    ties = sum((v == minimum).astype(cotangent.dtype) for v in volumes)
    share = jax.lax.optimization_barrier(cotangent / ties)  # once, not once a channel
    return ([jnp.where(v == minimum, share, 0) for v in volumes],)


_minimum.defvjp(_minimum_forward, _minimum_backward)


def _patch_distances(image, radius, dilation):
    """Mean squared difference of the patches of each pair, 12 volumes like `image`.

    Pairs with the same difference, as (a, b) and (−b, −a), share one volume, seen shifted.
    """
    reach = 2 * dilation + radius
    padded = jnp.pad(image, reach, mode="edge")
    shape = [n + 2 * (dilation + radius) for n in image.shape]
    centre = _shifted(padded, (0, 0, 0), dilation, shape)
    steps = sorted({_difference(a, b) for a, b in PAIRS})
    squares = jnp.stack([jnp.square(_shifted(padded, s, dilation, shape) - centre) for s in steps])
    means = dict(zip(steps, _box_mean(squares, 2 * radius + 1), strict=True))
    return [_shifted(means[_difference(a, b)], b, dilation, image.shape) for a, b in PAIRS]


def _difference(a, b):
    return tuple(i - j for i, j in zip(a, b, strict=True))


def _shifted(padded, offset, dilation, shape):
    """`padded`, which reaches `dilation` voxels further, `offset` · `dilation` voxels on."""
    start = [dilation * (1 + o) for o in offset]
    return jax.lax.slice(padded, start, [s + n for s, n in zip(start, shape, strict=True)])


def _box_mean(x, side):
    """Mean over each cube of `side` voxels inside [c, x, y, z], `side` − 1 voxels smaller."""
    for axis in (1, 2, 3):  # reduce_window: its gradient is one too, a sum of slices' is not
        window = [side if a == axis else 1 for a in range(4)]
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1,) * 4, "VALID") / side
    return x
