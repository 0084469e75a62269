"""L_sim: which images, features and numbers each `--loss` looks at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.losses.intensity import lncc, mse
from jaxreg.losses.mind import mind
from jaxreg.losses.mutual_information import global_mi, local_mi
from jaxreg.losses.ngf import ngf
from jaxreg.losses.patch_nce import patch_nce
from jaxreg.losses.sampling import Start, draw_voxels, take
from jaxreg.networks.autoencoder import Encoder
from jaxreg.networks.projection import Projection
from jaxreg.networks.segmentation_unet import SegmentationEncoder

NCE_MI_WEIGHTS = (0.1, 0.9)

FeatureNetwork = Encoder | SegmentationEncoder
"""What makes the features of the contrastive losses."""

Similarity = Callable[..., tuple[Array, dict[str, Array]]]
"""(key, fixed, moved, masks, *, start) → (value, terms); lower is more similar."""


class Masks(NamedTuple):
    """Where a similarity is taken: `brain`, either one; `around`, the same with a margin.

    Mutual information needs the margin. Within the brains alone, zeros of the moved image lie at
    the rim of the fixed brain only and tell grey matter from white: to shrink the moving brain
    raises MI, and a network learns that first. With background that both share it lowers MI.

    `common` is 1 where both images show brain, and between 0 and 1 at the moved brain's edge, so
    that the overlap has a gradient. LNCC weighs by it: the edge to the background lies at the
    outer fluid in a T2w, where that is bright, and inside it in a T1w, where it is dark, and a
    window that sees both edges would have them meet.
    """

    brain: Bool[Array, "x y z"]
    around: Bool[Array, "x y z"]
    common: Float[Array, "x y z"]


class FeatureExtractor(NamedTuple):
    """What the contrastive losses see: frozen encoders and trainable projections, by domain.

    `encoders[domain]` are the parameters of a feature network, `projections[domain][scale]` those
    of a Projection.
    """

    encoders: dict[str, Any]
    projections: dict[str, Any]


class View(NamedTuple):
    """What a similarity may look at; `domains`, `encoder` and `features` serve contrastive ones.

    `start` says from where on LNCC takes every second window; where it is None, and with a larger
    `lncc_stride` than 2, `key` draws that.
    """

    key: PRNGKeyArray
    fixed: Float[Array, "x y z 1"]
    moved: Float[Array, "x y z 1"]
    masks: Masks
    config: ObjectiveConfig
    domains: tuple[str, str]
    encoder: FeatureNetwork | None
    features: FeatureExtractor | None
    start: Start | None = None


def _mi(view: View) -> Array:
    samples, bins = view.config.mi_samples, view.config.mi_bins
    around = view.masks.around
    return global_mi(view.key, view.fixed, view.moved, around, samples=samples, bins=bins)


def _lmi(view: View) -> Array:
    patch, bins = view.config.lmi_patch, view.config.mi_bins
    return local_mi(view.key, view.fixed, view.moved, view.masks.around, patch=patch, bins=bins)


def _ngf(view: View) -> Array:
    return ngf(view.fixed, view.moved, view.masks.brain, eta=view.config.ngf_eta)


def _mind(view: View) -> Array:
    radius, dilation = view.config.mind_radius, view.config.mind_dilation
    return mind(view.fixed, view.moved, view.masks.brain, radius=radius, dilation=dilation)


def _lncc(view: View) -> Array:
    stride, start = view.config.lncc_stride, view.start
    if stride == 1:
        start = 0, 0, 0
    elif start is None or stride > 2:
        x, y, z = jax.random.randint(view.key, (3,), 0, stride)
        start = x, y, z
    return lncc(
        view.fixed,
        view.moved,
        view.masks.brain,
        weight=view.masks.common,
        window=view.config.lncc_window,
        epsilon=view.config.lncc_epsilon,
        stride=stride,
        start=start,
    )


def _mse(view: View) -> Array:
    return mse(view.fixed, view.moved, view.masks.brain)


def _nce(view: View) -> Array:
    assert view.encoder is not None and view.features is not None
    maps = [
        view.encoder.apply({"params": view.features.encoders[domain]}, image[None])
        for domain, image in zip(view.domains, (view.fixed, view.moved), strict=True)
    ]
    strides, features = view.encoder.strides, view.features
    mask, domains = view.masks.brain, view.domains
    return nce_over_scales(view.key, maps, mask, domains, strides, features, view.config)


def _nce_mi(view: View) -> tuple[Array, dict[str, Array]]:
    mi_key, nce_key = jax.random.split(view.key)
    terms = {"nce": _nce(view._replace(key=nce_key)), "mi": _mi(view._replace(key=mi_key))}
    return NCE_MI_WEIGHTS[0] * terms["nce"] + NCE_MI_WEIGHTS[1] * terms["mi"], terms


SIMILARITIES: dict[str, Callable[[View], Any]] = {
    "mi": _mi,
    "lmi": _lmi,
    "ngf": _ngf,
    "mind": _mind,
    "nce": _nce,
    "nce_mi": _nce_mi,
    "lncc": _lncc,
    "mse": _mse,
    "intra_lncc": _lncc,
}
"""The function of each loss of `LOSS_SPECS`: its value, or (value, terms) where it has parts."""


def make_similarity(
    config: ObjectiveConfig,
    domains: tuple[str, str],
    *,
    encoder: FeatureNetwork | None = None,
    features: FeatureExtractor | None = None,
) -> Similarity:
    """The function (key, fixed, moved, masks, *, start) → (value, terms) of `config.loss`.

    Lower is better. `domains` are those of fixed and moving; the contrastive losses need `encoder`
    and `features`.
    """

    def similarity(key, fixed, moved, masks, *, start=None):
        view = View(key, fixed, moved, masks, config, domains, encoder, features, start)
        found = SIMILARITIES[config.loss](view)
        return found if isinstance(found, tuple) else (found, {})

    if features is None:  # else the program would hold their parameters
        similarity.stored_as = f"{config} {domains}"
    return similarity


def nce_over_scales(
    key: PRNGKeyArray, maps, mask, domains, strides, features: FeatureExtractor, config
) -> Float[Array, ""]:
    """PatchNCE averaged over the tapped scales, at the same random locations inside the mask.

    `maps` are the feature maps of fixed and moved, each as an Encoder gives them.
    """
    locations = draw_voxels(key, mask, config.nce_locations)
    losses = []
    for scale in config.scales:
        cell = locations // strides[scale]
        query, positive = (
            _project(features.projections[domain][f"scale{scale}"], take(image[scale][0], cell))
            for domain, image in zip(domains, maps, strict=True)
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
