"""Contrast that varies in training, for scanners that the cohort does not show."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from jaxreg.spatial import dilate
from jaxreg.training.augmentation.synthesis.acquisition import in_slices

LOG_GAMMA = 0.4
"""The exponent of the intensities lies in exp(±0.4)."""
LOG_BIAS = 0.15
"""Standard deviation of the logarithm of the bias field at its 4×4×4 nodes."""
NOISE = 0.03
"""Largest standard deviation of the noise, intensities in [0, 1]."""
SIDE_WEIGHT = 0.25
"""Largest weight of the two neighbours in the blur along an axis: (w, 1 − 2w, w)."""
CUT_MARGIN = 3
"""Voxels around the hindbrain whose fluid goes with it."""
TEXTURE = 0.1
"""Standard deviation of a made image within a structure, at nodes four voxels apart."""


def vary_intensities(
    key: PRNGKeyArray, image: Float[Array, "x y z 1"], mask: Bool[Array, "x y z"]
) -> Float[Array, "x y z 1"]:
    """The image under a random gamma, smooth bias field, blur along each axis and noise.

    In [0, 1]; 0 outside the mask. After Billot et al., SynthSeg (MedIA 2023), whose images get the
    same four.
    """
    gamma_key, bias_key, level_key, noise_key, blur_key = jax.random.split(key, 5)
    gamma = jnp.exp(jax.random.uniform(gamma_key, minval=-LOG_GAMMA, maxval=LOG_GAMMA))
    nodes = LOG_BIAS * jax.random.normal(bias_key, (4, 4, 4))
    bias = jnp.exp(jax.image.resize(nodes, mask.shape, "linear"))
    level = jax.random.uniform(level_key, maxval=NOISE)
    noise = level * jax.random.normal(noise_key, mask.shape)
    seen = jnp.clip(blurred(blur_key, image[..., 0] ** gamma * bias) + noise, 0, 1)
    return jnp.where(mask, seen, 0)[..., None]


def synthesize(
    key: PRNGKeyArray, labels: UInt8[Array, "x y z"], mask: Bool[Array, "x y z"]
) -> Float[Array, "x y z 1"]:
    """An image in which every structure has a random intensity, in [0, 1]; 0 outside the mask.

    What the mask holds beyond the labels (fluid, vessels) is one more structure. After Hoffmann et
    al., SynthMorph (TMI 2022).
    """
    mean_key, texture_key, blur_key = jax.random.split(key, 3)
    nodes = [max(n // 4, 1) for n in mask.shape]
    texture = TEXTURE * jax.random.normal(texture_key, nodes)
    image = jax.random.uniform(mean_key, (256,))[labels]
    image = image * (1 + jax.image.resize(texture, mask.shape, "linear"))
    seen = jnp.clip(blurred(blur_key, jnp.where(mask, image, 0)), 0, 1)
    return jnp.where(mask, seen, 0)[..., None]


def blurred(key: PRNGKeyArray, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """The image blurred by its neighbours along each axis, by a random amount of its own."""
    for axis, w in enumerate(jax.random.uniform(key, (3,), maxval=SIDE_WEIGHT)):
        around = jnp.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], "edge")
        before, after = (
            jax.lax.slice_in_dim(around, first, first + image.shape[axis], axis=axis)
            for first in (0, 2)
        )
        image = (1 - 2 * w) * image + w * (before + after)
    return image


def augment(
    key: PRNGKeyArray,
    image: Float[Array, "x y z 1"],
    mask: Bool[Array, "x y z"],
    labels: UInt8[Array, "x y z"] | None,
    *,
    vary: bool,
    synthetic: float,
    drop_hindbrain: float,
    hindbrain: tuple[int, ...] = (),
    slices: float = 0.0,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Float[Array, "x y z 1"]:
    """What the network sees of an image in training.

    In the share `synthetic` of the cases it is made from the labels, where the subject has any; in
    the share `slices` it is seen in thick slices, of voxels that are `spacing_mm` large; in the
    share `drop_hindbrain` the labels `hindbrain` are cut off; `vary` changes it in any case.
    """
    vary_key, synth_key, choice_key, cut_key = jax.random.split(key, 4)
    if synthetic > 0 and labels is not None:
        made = jax.random.bernoulli(choice_key, synthetic) & jnp.any(labels > 0)
        image = jnp.where(made, synthesize(synth_key, labels, mask), image)
    if slices > 0:
        vary_key, share_key, slices_key = jax.random.split(vary_key, 3)
        sliced = in_slices(slices_key, image[..., 0], spacing_mm=spacing_mm)[..., None]
        image = jnp.where(jax.random.bernoulli(share_key, slices) & mask[..., None], sliced, image)
    image = vary_intensities(vary_key, image, mask) if vary else image
    if drop_hindbrain > 0 and labels is not None:
        gone = jax.random.bernoulli(cut_key, drop_hindbrain) & around(labels, hindbrain)
        image = jnp.where(gone[..., None], 0, image)
    return image


def around(labels: UInt8[Array, "x y z"], wanted: tuple[int, ...]) -> Bool[Array, "x y z"]:
    """The voxels of some labels, and those without a label at most CUT_MARGIN voxels off."""
    inside = jnp.isin(labels, jnp.asarray(wanted, labels.dtype))
    return inside | (dilate(inside, CUT_MARGIN) & (labels == 0))
