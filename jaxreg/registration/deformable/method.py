"""How a velocity is found: by a network, by a network and refinement, or by optimisation alone."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.configuration.domains import domains_of_model
from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.registration import (
    DIRECT_LABEL_WEIGHT,
    DIRECT_RATE,
    REFINE_LABEL_WEIGHT,
    REFINE_RATE,
    UNGUIDED_RATE,
    UNGUIDED_STEPS,
    RegisterConfig,
)
from jaxreg.configuration.serialization import as_json
from jaxreg.errors import InputError
from jaxreg.losses.similarity import FeatureExtractor, Similarity, make_similarity
from jaxreg.models.model import Model, encoder_of
from jaxreg.models.release import SHIPPED, load_model

LNCC_STRIDE = 2
"""An optimisation of a pair takes the windows of LNCC around every second voxel, other ones in each
of eight steps (`losses/sampling.py`): a third less time, and the same Dice
(docs/experiments/refinement.md)."""


class Method(NamedTuple):
    """How velocities are found: `passes` of `model` (None: from zero), then `steps` at `rate`.

    `exchanged` says that the network's order is the other one: it sees the pair exchanged, and its
    velocity is negated.
    """

    model: Model | None
    objective: ObjectiveConfig
    similarity: Similarity
    spacing_mm: tuple[float, float, float]
    domains: tuple[str, str] | None
    exchanged: bool
    passes: int
    steps: int
    rate: float
    lam: float
    weights_sha256: str | None


def routed(
    method: Method, config: RegisterConfig, contrasts: tuple[str, str] | None
) -> tuple[Method, str | None]:
    """The method for a pair of contrasts, and a line where it is another one than was loaded.

    The order of the model's two contrasts does not matter. Other contrasts are registered by direct
    optimisation, which knows none, unless the network was asked for.

    Raises:
        InputError: contrasts that the model does not know, with settings that only a network reads.
    """
    if method.model is None or contrasts is None:
        return method, None
    own = method.model.config.cohort.domain_pair
    if sorted(contrasts) == sorted(own):
        return method._replace(domains=contrasts, exchanged=contrasts != own), None
    pair = f"{contrasts[0]} and {contrasts[1]}"
    wanted = [n for n in ("model", "refine", "passes") if getattr(config, n) is not None]
    if wanted:
        raise InputError(
            f"--{wanted[0]}: the network registers {own[0]} and {own[1]}, the images are {pair} by "
            "their names or intensities. Give --domains FIXED,MOVING where that is wrong, or "
            "--optimize-only, which registers any contrasts."
        )
    direct = load_method(dataclasses.replace(config, optimize_only=True))
    return direct, (
        f"{pair}, as their names or intensities say: the network registers {own[0]} and {own[1]}, "
        "so this pair is registered by direct optimisation, as with --optimize-only"
    )


def load_method(config: RegisterConfig, *, load: Callable[[Path], Model] = load_model) -> Method:
    """The method that a configuration asks for, in the order of its network.

    `load` gives the network of a folder, and may have it already.

    Raises:
        InputError: no such run, a λ or contrasts that its network does not take.
    """
    if config.optimize_only or config.transform != "deformable":
        direct = config.direct
        objective = _with_labels(ObjectiveConfig(loss=direct.loss), config, DIRECT_LABEL_WEIGHT)
        return Method(
            model=None,
            objective=objective,
            similarity=_direct_similarity(objective),
            spacing_mm=(direct.spacing, direct.spacing, direct.spacing),
            domains=None,
            exchanged=False,
            passes=0,
            steps=direct.steps if config.transform == "deformable" else 0,
            rate=DIRECT_RATE,
            lam=direct.lam,
            weights_sha256=None,
        )
    model = load(config.model or SHIPPED)
    own = model.config.cohort.domain_pair
    if config.domains is not None:
        domains_of_model(config.domains, own)
    objective = _with_labels(model.config.objective.of_a_pair, config, REFINE_LABEL_WEIGHT)
    learned = model.encoder_stem is not None
    similarity = _learned(_ByHash(model)) if learned else _direct_similarity(objective)
    method = Method(
        model=model,
        objective=objective,
        similarity=similarity,
        spacing_mm=model.spacing_mm,
        domains=own,
        exchanged=False,
        passes=config.passes or model.defaults.passes,
        steps=model.defaults.refine if config.refine is None else config.refine,
        rate=REFINE_RATE,
        lam=_network_lam(config, model),
        weights_sha256=model.sha256,
    )
    return method if objective.label_weight > 0 else unguided(method, config)


def unguided(method: Method, config: RegisterConfig) -> Method:
    """The method for a pair without segmentations: its refinement is shorter and more careful."""
    if method.model is None:
        return method
    steps = method.steps
    if config.refine is None and steps:
        steps = UNGUIDED_STEPS
    return method._replace(steps=steps, rate=UNGUIDED_RATE)


def _with_labels(
    objective: ObjectiveConfig, config: RegisterConfig, usual: float
) -> ObjectiveConfig:
    """The objective with the overlap of both segmentations, where they are made.

    LNCC looks at the windows around every second voxel, at other ones in each step.
    """
    if "lncc_stride" in objective.spec.settings:
        objective = dataclasses.replace(objective, lncc_stride=LNCC_STRIDE)
    weight = usual if config.label_weight is None else config.label_weight
    if config.extract == "never":
        weight = 0.0
    return dataclasses.replace(objective, label_weight=weight)


@functools.cache
def _direct_similarity(objective: ObjectiveConfig) -> Similarity:
    """The similarity of an objective without features; one object, so that it compiles once."""
    return make_similarity(objective, ("fixed", "moving"))


class _ByHash:
    """A model that equals another one with the same parameters and configuration."""

    def __init__(self, model: Model):
        self.model = model
        self.key = model.sha256, json.dumps(as_json(model.config), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByHash) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=4)
def _learned(source: _ByHash) -> Similarity:
    """The similarity with the features that a model was trained with; one object for each model."""
    model = source.model
    assert model.encoder_stem is not None
    config, encoder = model.config, encoder_of(model.encoder_stem)
    features = FeatureExtractor(
        *jax.tree.map(jnp.asarray, (model.encoders, model.params["projections"]))
    )
    domains = config.cohort.domain_pair
    return make_similarity(config.objective, domains, encoder=encoder, features=features)


def _network_lam(config: RegisterConfig, model: Model) -> float:
    own = model.config.network.lam
    if own is None:
        return float(config.lam) if isinstance(config.lam, float | int) else model.defaults.lam
    if config.lam is not None and config.lam != own:
        raise InputError(f"--lam: {model.folder} was trained at λ = {own} alone, got {config.lam}.")
    return own
