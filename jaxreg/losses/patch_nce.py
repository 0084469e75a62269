"""PatchNCE (Park et al., ECCV 2020) between the features of two domains.

Corresponding locations of the fixed and the moved image are each other's positives; the other
locations of the same pair are the negatives.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def patch_nce(
    query: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    cell: Int[Array, "n 3"],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Cross-entropy of (qᵢ·kⱼ/τ) with target i, mean of both directions; ≥ 0, log n if all equal.

    `query` and `positive` are L2-normalised. Locations of one `cell` (a voxel of the feature map)
    are not negatives of each other.
    """
    logits = query @ positive.T / temperature
    same_cell = jnp.all(cell[:, None] == cell[None, :], axis=-1)
    logits = jnp.where(same_cell & ~jnp.eye(len(cell), dtype=bool), -jnp.inf, logits)
    matched = jnp.diagonal(logits)
    forward = jax.nn.logsumexp(logits, axis=1) - matched
    backward = jax.nn.logsumexp(logits, axis=0) - matched
    return 0.5 * jnp.mean(forward + backward)
