"""The frozen encoders whose features a registration network's loss compares."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxreg.configuration.serialization import from_json
from jaxreg.configuration.training import BUNDLED_ENCODERS, AutoencoderConfig, RegistrationConfig
from jaxreg.data.cohort import Cohort, fingerprint, subjects_of
from jaxreg.errors import InputError
from jaxreg.models.checkpoint import Meta, open_run, parameters_sha256
from jaxreg.models.model import encoder_of, init_encoders, stem_of
from jaxreg.models.segmentation_model import is_segmentation_model
from jaxreg.segmentation.networks import load_segmentation
from jaxreg.training.autoencoder import autoencoder_of


def load_encoders(
    config: RegistrationConfig, *, found: Callable[[Path, Meta], None] = lambda *_: None
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(encoder, frozen parameters by domain, identity) of stage 1; nothing for other losses.

    `--encoders` may name segmentation networks instead: the fine one is then the encoder of both
    domains. `found` gets the folder of the autoencoders, and what their checkpoint says of itself.

    Raises:
        InputError: the encoders are missing, not of stage 1, or lack a domain.
    """
    if not config.objective.spec.contrastive:
        return None, {}, {}
    workdir = config.encoders or Path("runs/ae")
    bundled = str(workdir) == BUNDLED_ENCODERS
    if bundled or is_segmentation_model(workdir):
        model, _ = load_segmentation(None if bundled else workdir)
        stem, params = stem_of(model.channels["fine"]), model.params["fine"]
        scales = len(encoder_of(stem).channels)
        if config.objective.scales[-1] >= scales:
            raise InputError(
                f"--taps: expected scales below {scales}, as the segmentation network of "
                f"{workdir} has them, got {config.objective.taps}."
            )
        encoders = dict.fromkeys(config.cohort.domain_pair, params)
        extra = {"encoder_stem": stem, "encoders_sha256": parameters_sha256(encoders)}
        return encoder_of(stem), encoders, extra
    if config.encoders is None and not workdir.is_dir():
        data = "" if config.cohort.data is None else f" --data={config.cohort.data}"
        raise InputError(
            f"--loss={config.objective.loss}: expected the autoencoders of stage 1 in {workdir}, "
            f"found none; train them first (jaxreg train --stage=ae{data}), or name their folder "
            "by --encoders."
        )
    checkpoints, meta = open_run(workdir, "ae")
    stored = from_json(AutoencoderConfig, meta.config)
    trained = tuple(dict.fromkeys(stored.cohort.domain_pair))
    missing = [d for d in config.cohort.domain_pair if d not in trained]
    if missing:
        raise InputError(f"{workdir}: expected encoders of {missing[0]}, got {', '.join(trained)}.")
    found(workdir, meta)
    network = autoencoder_of(stored.encoder.stem)
    blank = network.init(jax.random.key(0), jax.numpy.zeros((1, 16, 16, 16, 1)))["params"]
    like = {"trainable": {d: blank for d in trained}, "frozen": {}}
    restored = checkpoints.params(meta.step, like)["trainable"]
    encoders = {d: restored[d]["encoder"] for d in dict.fromkeys(config.cohort.domain_pair)}
    template = init_encoders(config.cohort.domain_pair, stored.encoder.stem)
    assert jax.tree.structure(template) == jax.tree.structure(encoders)
    extra = {
        "encoder_stem": stored.encoder.stem,
        "encoders_sha256": parameters_sha256(encoders),
    }
    return encoder_of(stored.encoder.stem), encoders, extra


def other_images(
    meta: Meta, cohort: Cohort, spacing_mm: tuple[float, float, float]
) -> Iterator[str]:
    """How the images of the autoencoders' training differ from those of a run, a line each."""
    stored = from_json(AutoencoderConfig, meta.config).cohort
    domains = dict.fromkeys(stored.domain_pair)
    subjects = subjects_of(cohort.participants, "train")
    # A cohort may lack a contrast that only the autoencoders had, which `members` would refuse.
    train = [(p, d) for d in domains for p in subjects if cohort.file(p, d).is_file()]
    then_sha256, then_mm = (meta.identity.get(name) for name in ("data_sha256", "spacing_mm"))
    if then_sha256 not in (None, fingerprint(cohort, train)):  # early versions stored neither
        name = stored.data or "the embedded cohort"
        yield (
            "these autoencoders were trained on other images than those of the train split of "
            f"{cohort.folder} (on {name})."
        )
    if then_mm not in (None, list(spacing_mm)):
        then, now = (" × ".join(f"{s:g}" for s in mm) for mm in (then_mm, spacing_mm))
        yield f"these autoencoders were trained on voxels of {then} mm, not of {now} mm."
