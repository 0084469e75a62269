"""Projection heads of PatchNCE: features of a domain and scale → where they are compared."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Projection(nn.Module):
    """Three dense layers, ReLU between them, and L2 normalisation (SimCLR; Park et al. 2020)."""

    features: int = 256
    layers: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n d"]:
        """Unit vectors; a zero vector stays zero."""
        for i in range(self.layers):
            x = nn.Dense(self.features, name=f"dense{i}")(x if i == 0 else nn.relu(x))
        return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)
