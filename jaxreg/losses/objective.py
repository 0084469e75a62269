"""The training objective of stage 2; every weight of a loss is applied here and nowhere else.

    loss = (1 − λ) · scale · L_sim(fixed, moved) + λ · R(v)

The velocity lives at half resolution, in its own voxels; moved(x) = moving(x + u(x)) with u the
displacement of exp(v) at full resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxreg.errors import require_choice
from jaxreg.losses.intensity import lncc
from jaxreg.losses.locations import draw_voxels, take, union_mask
from jaxreg.losses.mutual_information import global_mi
from jaxreg.losses.patch_nce import patch_nce
from jaxreg.losses.smoothness import diffusion, l2
from jaxreg.networks.autoencoder import Encoder
from jaxreg.networks.projection import Projection
from jaxreg.spatial import exponentiate, resize_displacement, warp

LOSSES = ("mi", "nce", "nce_mi", "lncc")
CONTRASTIVE_LOSSES = ("nce", "nce_mi")
REGULARIZERS = {"diffusion": diffusion, "l2": l2}
NCE_MI_WEIGHTS = (0.1, 0.9)
SIMILARITY_SCALE = {"mi": 1.0, "nce": 1.0, "nce_mi": 1.0, "lncc": 8.0}
"""One constant a loss, so that each one's best λ lies inside the sweep; 1 for the paper's."""


class Pair(NamedTuple):
    """Two subjects on one grid, intensities in [0, 1]; with a leading batch axis in a batch."""

    fixed: Float[Array, "x y z 1"]
    moving: Float[Array, "x y z 1"]
    fixed_mask: Bool[Array, "x y z"]
    moving_mask: Bool[Array, "x y z"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and how the velocity becomes a displacement."""

    loss: str = "nce_mi"
    """Similarity: mi, nce, nce_mi (0.1 nce + 0.9 mi, the paper's) or lncc."""
    regularizer: str = "diffusion"
    """diffusion (mean ‖∇v‖²) or l2 (mean ‖v‖²)."""
    squarings: int = 7
    """Squarings in the integration of the velocity."""
    mi_samples: int = 65536
    """Voxels drawn inside the masks each step for MI; 0 takes all."""
    mi_bins: int = 32
    """Bins of the joint histogram on [0, 1]."""
    nce_locations: int = 512
    """Locations per scale for PatchNCE: one positive and N − 1 negatives each."""
    nce_temperature: float = 0.07
    """Temperature τ of PatchNCE."""
    lncc_window: int = 7
    """Side of the LNCC window, voxels."""

    def __post_init__(self):
        """Refuse unknown names before anything is read or written."""
        require_choice("loss", self.loss, LOSSES)
        require_choice("regularizer", self.regularizer, tuple(REGULARIZERS))


class FeatureExtractor(NamedTuple):
    """What the contrastive losses see: frozen encoders and trainable projections, by domain.

    `encoders[domain]` are an Encoder's parameters, `projections[domain][scale]` a Projection's.
    """

    encoders: dict[str, Any]
    projections: dict[str, Any]


def displacement_of(
    velocity: Float[Array, "u v w 3"], shape: tuple[int, ...], *, squarings: int
) -> Float[Array, "x y z 3"]:
    """Displacement of exp(v) on the full grid, in its voxels; -v gives the inverse."""
    return resize_displacement(exponentiate(velocity, squarings=squarings), shape, (2.0,) * 3)


def objective(
    key: PRNGKeyArray,
    pair: Pair,
    velocity: Float[Array, "u v w 3"],
    lam: Float[Array, ""],
    similarity: Callable[..., tuple[Array, dict[str, Array]]],
    config: ObjectiveConfig,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of one pair and its terms, λ weighing smoothness against similarity."""
    shape = pair.fixed.shape[:3]
    displacement = displacement_of(velocity, shape, squarings=config.squarings)
    moved = warp(pair.moving, displacement)
    moved_mask = warp(pair.moving_mask[..., None], displacement, order=0)[..., 0]
    mask = union_mask(pair.fixed_mask, moved_mask)
    value, terms = similarity(key, pair.fixed, moved, mask)
    roughness = REGULARIZERS[config.regularizer](velocity)
    total = (1 - lam) * SIMILARITY_SCALE[config.loss] * value + lam * roughness
    return total, {**terms, "similarity": value, "roughness": roughness}


def make_similarity(
    config: ObjectiveConfig,
    domains: tuple[str, str],
    encoder: Encoder | None = None,
    features: FeatureExtractor | None = None,
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """The function (key, fixed, moved, mask) → (value, terms) of `config.loss`; lower is better.

    `domains` are those of fixed and moving; the contrastive losses need `encoder` and `features`.
    """

    def mi(key, fixed, moved, mask):
        return global_mi(key, fixed, moved, mask, samples=config.mi_samples, bins=config.mi_bins)

    def nce(key, fixed, moved, mask):
        assert encoder is not None and features is not None
        fixed_maps, moved_maps = (
            encoder.apply({"params": features.encoders[domain]}, image[None])
            for domain, image in zip(domains, (fixed, moved), strict=True)
        )
        strides = encoder.strides
        return nce_over_scales(
            key, fixed_maps, moved_maps, mask, domains, strides, features, config
        )

    def similarity(key, fixed, moved, mask):
        if config.loss == "mi":
            return mi(key, fixed, moved, mask), {}
        if config.loss == "lncc":
            return lncc(fixed, moved, mask, window=config.lncc_window), {}
        if config.loss == "nce":
            return nce(key, fixed, moved, mask), {}
        mi_key, nce_key = jax.random.split(key)
        terms = {"nce": nce(nce_key, fixed, moved, mask), "mi": mi(mi_key, fixed, moved, mask)}
        return NCE_MI_WEIGHTS[0] * terms["nce"] + NCE_MI_WEIGHTS[1] * terms["mi"], terms

    return similarity


def nce_over_scales(
    key, fixed_maps, moved_maps, mask, domains, strides, features, config
) -> Float[Array, ""]:
    """PatchNCE averaged over the scales, at the same random locations inside the mask."""
    locations = draw_voxels(key, mask, config.nce_locations)
    losses = []
    for scale, stride in enumerate(strides):
        cell = locations // stride
        query, positive = (
            _project(features.projections[domain][f"scale{scale}"], take(maps[scale][0], cell))
            for domain, maps in zip(domains, (fixed_maps, moved_maps), strict=True)
        )
        losses.append(patch_nce(query, positive, cell, temperature=config.nce_temperature))
    return jnp.mean(jnp.stack(losses))


def _project(params: Any, features: Float[Array, "n c"]) -> Array:
    projected = Projection().apply({"params": params}, features)
    assert isinstance(projected, jax.Array)
    return projected


def init_projections(
    key: PRNGKeyArray, domains: tuple[str, ...], channels: tuple[int, ...]
) -> dict[str, Any]:
    """Fresh projection parameters, `[domain]["scale0"…]`, one MLP per domain and scale."""
    projections: dict[str, Any] = {}
    for i, domain in enumerate(dict.fromkeys(domains)):
        keys = jax.random.split(jax.random.fold_in(key, i), len(channels))
        projections[domain] = {
            f"scale{s}": Projection().init(keys[s], jnp.zeros((1, c)))["params"]
            for s, c in enumerate(channels)
        }
    return projections
