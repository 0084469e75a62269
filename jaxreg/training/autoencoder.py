"""Stage 1: one autoencoder per domain by L1 + (1 − LNCC), no pairs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg import distributed
from jaxreg.configuration.objective import LNCC_EPSILON, LNCC_WINDOW
from jaxreg.configuration.serialization import as_json, identity
from jaxreg.configuration.training import AutoencoderConfig
from jaxreg.data.cohort import Cohort, fingerprint, subjects_of
from jaxreg.data.pipeline import image_batches
from jaxreg.data.volumes import Volumes
from jaxreg.evaluation.figures import basic
from jaxreg.io.images import Remark, unheard
from jaxreg.losses.intensity import l1, lncc
from jaxreg.networks.autoencoder import DEFAULT_CHANNELS, Autoencoder
from jaxreg.training.augmentation.flip import mirrored
from jaxreg.training.loop import Task

_TERMS = ("l1", "lncc")


def autoencoder_task(
    config: AutoencoderConfig, cohort: Cohort, *, remark: Remark = unheard
) -> Task:
    """Stage 1 on a cohort, its train split read and checked.

    `remark` gets a line on what is unusual in a file and is accepted.
    """
    domains = tuple(dict.fromkeys(config.cohort.domain_pair))
    members = {d: cohort.members("train", d) for d in domains}
    held_out = {d: held_out_of(cohort, d) for d in domains}
    train = [(p, d) for d in domains for p in members[d]]
    needed = train + [(p, d) for d in domains for p in held_out[d]]
    spacing_mm = config.cohort.spacing
    volumes = Volumes(cohort, needed, spacing_mm=spacing_mm, shared=True, remark=remark)
    optimizer = config.optimizer
    network = autoencoder_of(config.encoder.stem)
    keys = jax.random.split(jax.random.key(optimizer.seed), len(domains))
    image = jnp.zeros((1, 16, 16, 16, 1))
    params = {d: network.init(k, image)["params"] for d, k in zip(domains, keys, strict=True)}

    def loss(params, frozen, sample, key):
        del frozen, key
        total, terms = jnp.zeros(()), {}
        for domain in domains:
            value, parts = reconstruction_loss(network, params[domain], sample[domain])
            total += value
            terms |= {f"{k}_{domain}": v for k, v in parts.items()}
        return total, terms

    def describe(batch, row):
        names = (f"{members[d][batch[d + '_index'][row]]} {d}" for d in domains)
        return ", ".join(names)

    return Task(
        stage="ae",
        config=as_json(config),
        identity={
            **identity(config),
            "data_sha256": distributed.broadcast_from_primary(lambda: fingerprint(cohort, train)),
            "spacing_mm": list(volumes.spacing_mm),
        },
        defaults=identity(AutoencoderConfig()),
        params=params,
        frozen={},
        loss=loss,
        batches=image_batches(
            volumes,
            members,
            seed=optimizer.seed,
            batch_size=optimizer.batch_size,
            flip=mirrored if config.cohort.flip else None,
        ),
        arrays=domains,
        describe=describe,
        validate=_validation(network, volumes, held_out) if any(held_out.values()) else None,
    )


def autoencoder_of(stem: str) -> Autoencoder:
    """The autoencoder of a stem."""
    return Autoencoder(stem, DEFAULT_CHANNELS[stem])


def reconstruction_loss(network: Autoencoder, params: Any, image: jax.Array):
    """L1 + (1 − LNCC) of one image [x, y, z, 1] and its reconstruction, over the whole grid."""
    output = network.apply({"params": params}, image[None])
    assert isinstance(output, jax.Array)
    everywhere = jnp.ones(image.shape[:3], bool)
    unlike = lncc(image, output[0], everywhere, window=LNCC_WINDOW, epsilon=LNCC_EPSILON)
    parts = {"l1": l1(image, output[0], everywhere), "lncc": unlike}
    assert tuple(parts) == _TERMS
    return parts["l1"] + parts["lncc"], parts


def held_out_of(cohort: Cohort, domain: str) -> list[str]:
    """Subjects of the val split who have a domain: their reconstructions are validated."""
    subjects = subjects_of(cohort.participants, "val")
    return [p for p in subjects if cohort.file(p, domain).is_file()]


def _validation(network, volumes, held_out):
    @jax.jit
    def reconstruct(params, image):
        output = network.apply({"params": params}, image[None])[0]
        return reconstruction_loss(network, params, image)[1], output

    def validate(params, frozen, step):
        del frozen, step
        scalars, pictures = {}, []
        for domain, subjects in held_out.items():
            if not subjects:
                continue
            rows = np.zeros((0, len(_TERMS)))
            for subject in distributed.share(subjects):
                image = volumes.scan(subject, domain).image
                parts, output = reconstruct(params[domain], image)
                rows = np.append(rows, [[float(parts[name]) for name in _TERMS]], axis=0)
                if subject == subjects[0]:
                    output = np.clip(np.asarray(output)[..., 0], 0, 1)
                    pictures.append((f"{subject} {domain}", image[..., 0], output))
            means = distributed.gather(rows).mean(axis=0)
            scalars |= {f"{k}_{domain}": float(v) for k, v in zip(_TERMS, means, strict=True)}
        if not pictures:
            return scalars, None
        picture = basic.reconstructions(pictures, spacing_mm=volumes.spacing_mm)
        return scalars, basic.to_rgb(picture)

    return validate
