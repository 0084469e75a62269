"""Normalised gradient fields (Haber & Modersitzki, MICCAI 2006): edges that run in parallel."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxreg.losses.intensity import masked_mean


def ngf(
    fixed: Float[Array, "x y z 1"],
    moved: Float[Array, "x y z 1"],
    mask: Bool[Array, "x y z"],
    *,
    eta: float,
) -> Float[Array, ""]:
    """Mean of 1 − ⟨n(∇f), n(∇m)⟩² over the mask, in [0, 1]; 0 for parallel edges, any contrast.

    n(g) = g/√(‖g‖² + η²), ∇ by central differences in voxels, one-sided at the border, η in
    intensity per voxel: edges below it, noise among them, count little, and a flat voxel gives 1.
    The scalar product is squared, not each axis' part of it. An empty mask gives 0.
    """
    f, m = (jnp.stack(jnp.gradient(image[..., 0]), axis=-1) for image in (fixed, moved))
    product = jnp.sum(f * m, axis=-1)
    lengths = (jnp.sum(f * f, axis=-1) + eta**2) * (jnp.sum(m * m, axis=-1) + eta**2)
    return masked_mean(1 - product**2 / lengths, mask)
