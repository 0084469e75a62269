"""Every loss registers: a known smooth deformation is found again by direct optimisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxreg.configuration.objective import CONTRASTIVE_LOSSES, LOSS_SPECS, ObjectiveConfig
from jaxreg.data.synthetic.phantom import phantom_subject
from jaxreg.data.synthetic.simulate import exponentiate, random_displacement, warp
from jaxreg.losses.similarity import FeatureExtractor, init_projections, make_similarity
from jaxreg.models.model import encoder_of
from jaxreg.pair import Pair
from jaxreg.registration.deformable.optimization import optimize_jointly, taper, zero_velocity
from jaxreg.spatial import displacement_of
from jaxreg.training.autoencoder import autoencoder_of, reconstruction_loss

SHAPE = (32, 36, 28)
SPACING = 6.0
STEM = "conv"
DOMAINS = ("T1w", "T2w")
SETTINGS = {
    "lncc": {"lncc_window": 5},
    "lmi": {"lmi_patch": 12},
    "mind": {"mind_dilation": 1},
    "ngf": {"ngf_eta": 0.1},
    "nce": {"taps": "0", "nce_locations": 1024},
}
"""The grid is coarse (6 mm): windows of the usual width would span half of it, and the folds of
the cortex are as noise to gradients. With NCE only the finest scale: on a single pair, projections
of features that see far learn by heart where each voxel is, and match it to its wrong partner."""
LAM = {"ngf": 0.7, "mind": 0.7, "lncc": 0.7, "nce": 0.8}
"""λ of each loss, 0.3 for the others: its scale was chosen at 2 mm."""


@pytest.fixture(scope="module")
def subject():
    return phantom_subject(3, shape=SHAPE, spacing_mm=SPACING)


@pytest.fixture(scope="module")
def deformation():
    """(u that deforms the moving image, u that brings it back), voxels."""
    rng = np.random.default_rng(0)
    velocity = random_displacement(
        rng, SHAPE, spacing_mm=SPACING, rms_mm=16.5, scale_mm=45.0, affine=True
    )
    return exponentiate(velocity), exponentiate(-velocity)


def scaled(image, mask):
    return np.where(mask, np.clip(image / np.percentile(image[mask], 99.5), 0, 1), 0)[..., None]


def make_pair(subject, displacement, domains):
    """The subject's own two images, the moving one deformed."""
    brain = subject.labels > 0
    images = [scaled(subject.images[d], brain).astype(np.float32) for d in domains]
    moved_brain = warp(brain[..., None], displacement, order=0)[..., 0]
    moving = warp(images[1], displacement)
    arrays = (jnp.asarray(a) for a in (images[0], moving, brain, moved_brain))
    return Pair(*arrays)


@functools.cache
def encoders():
    """Both domains' encoders after a short stage 1 on two other phantoms."""
    network, optimizer = autoencoder_of(STEM), optax.adam(2e-3)
    trained = {}
    for domain in DOMAINS:
        subjects = [phantom_subject(seed, shape=SHAPE, spacing_mm=SPACING) for seed in (11, 12)]
        pictures = ((p.images[domain], p.labels > 0) for p in subjects)
        images = [jnp.asarray(scaled(*picture), jnp.float32) for picture in pictures]

        @jax.jit
        def step(params, state, image):
            def loss(params):
                return reconstruction_loss(network, params, image)[0]

            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        params = network.init(jax.random.key(0), images[0][None])["params"]
        state = optimizer.init(params)
        for i in range(60):
            params, state = step(params, state, images[i % 2])
        trained[domain] = params["encoder"]
    return trained


def recovered(pair, config, domains, lam):
    """Displacement after direct optimisation; with NCE its projections are optimised too."""
    encoder, parameters, frozen = None, None, {}
    if config.loss in CONTRASTIVE_LOSSES:
        encoder, frozen = encoder_of(STEM), encoders()
        parameters = init_projections(jax.random.key(1), domains, encoder.channels)

    def similarity_of(projections):
        features = None if encoder is None else FeatureExtractor(frozen, projections)
        return make_similarity(config, domains, encoder=encoder, features=features)

    velocity, _, _ = optimize_jointly(
        jax.random.key(0),
        pair,
        jnp.float32(lam),
        zero_velocity(SHAPE),
        parameters,
        similarity_of,
        config,
        steps=100,
        learning_rate=0.1,
    )
    return displacement_of(taper(velocity), SHAPE, squarings=config.squarings)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [n for n, s in LOSS_SPECS.items() if not s.aligned])
def test_a_known_deformation_is_recovered(loss, subject, deformation):
    domains = ("T1w", "T1w") if loss == "mse" else DOMAINS
    config = ObjectiveConfig(loss=loss, **SETTINGS.get(loss, {}))
    forth, back = deformation
    pair = make_pair(subject, forth, domains)
    inside = np.asarray(pair.fixed_mask)
    size = np.median(np.linalg.norm(back[inside], axis=-1))
    error = np.asarray(recovered(pair, config, domains, LAM.get(loss, 0.3))) - back
    left = np.median(np.linalg.norm(error[inside], axis=-1))
    assert size > 2
    assert left < 1
