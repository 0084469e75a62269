"""Stage 2: the λ-conditioned velocity network, trained on inter-subject pairs."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxreg import distributed
from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.serialization import as_json, identity
from jaxreg.configuration.training import RegistrationConfig
from jaxreg.configuration.unread import flag_of
from jaxreg.data.cohort import Cohort, fingerprint
from jaxreg.data.pipeline import pair_batches
from jaxreg.data.prepare.freesurfer_labels import STRUCTURES
from jaxreg.data.prepare.subject import write_image
from jaxreg.data.prepare.template import Head, average, evenly_spaced
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.evaluation.figures import basic
from jaxreg.evaluation.statistics import mean_known
from jaxreg.evaluation.sweep import score_pair
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import Remark, unheard
from jaxreg.io.remarks import WARNING
from jaxreg.losses.objective import draw_lam, objective
from jaxreg.losses.similarity import FeatureExtractor, make_similarity
from jaxreg.models.checkpoint import Meta, parameters_sha256
from jaxreg.models.model import TEMPLATE, Model, init_params, network_of
from jaxreg.models.release import load_model
from jaxreg.pair import Pair
from jaxreg.segmentation.networks import load_named_segmentation
from jaxreg.spatial import moved_image, warp
from jaxreg.training.augmentation.anatomy import LAM, with_mixed_anatomy
from jaxreg.training.augmentation.flip import mirrored
from jaxreg.training.augmentation.intensity import augment
from jaxreg.training.augmentation.pose import posed
from jaxreg.training.encoders import load_encoders, other_images
from jaxreg.training.loop import Task
from jaxreg.training.subjects import (
    hindbrain_of,
    labelled_subjects,
    require_labelled_pair,
    training_subjects,
    validation_pairs,
)
from jaxreg.training.teacher import taught_labels

VALIDATION_LAMBDAS = (0.2, 0.5, 0.8)


def registration_task(
    config: RegistrationConfig, cohort: Cohort, *, remark: Remark = unheard
) -> Task:
    """Stage 2 on a cohort, its train split read and checked, encoders loaded where needed.

    `remark` gets a line on what is unusual in a file and is accepted.
    """
    domains = config.cohort.domain_pair
    both_contrasts = config.objective.spec.aligned
    fixed, moving = training_subjects(cohort, domains, both_contrasts=both_contrasts)
    first, second = domains
    train = sorted(
        {*((p, first) for p in (*fixed, *moving * both_contrasts)), *((p, second) for p in moving)}
    )
    augmentation = config.augmentation
    labels = config.objective.label_weight > 0 or augmentation.needs_labels
    own_labels = config.objective.label_weight > 0
    if labels:
        train += labelled_subjects(cohort, {*fixed, *moving}, required=config.teacher is None)
    if own_labels and config.teacher is None:
        require_labelled_pair(cohort, fixed, moving)
    hindbrain = hindbrain_of(cohort) if augmentation.drop_hindbrain_fraction > 0 else ()
    pairs = validation_pairs(cohort, domains)[: config.validation_pairs]
    needed = {(p, d) for pair in pairs for p, d in zip(pair, domains, strict=True)}
    keys = [*train, *sorted(needed)]
    spacing_mm = config.cohort.spacing
    volumes = Volumes(cohort, keys, spacing_mm=spacing_mm, shared=True, remark=remark)

    def compare(workdir: Path, meta: Meta) -> None:
        if distributed.index() == 0:
            for line in other_images(meta, cohort, volumes.spacing_mm):
                remark(f"{WARNING}{workdir}: {line}")

    encoder, encoders, extra = load_encoders(config, found=compare)
    params = init_params(jax.random.key(config.optimizer.seed), config, encoder)
    if config.init_from is not None:
        params, start = initialized_from(params, config)
        extra["init_from_sha256"] = start
    info = {
        **extra,
        "data_sha256": distributed.broadcast_from_primary(lambda: fingerprint(cohort, train)),
    }
    info["spacing_mm"] = list(volumes.spacing_mm)
    taught = None
    if config.teacher is not None:
        model, networks = load_named_segmentation(config.teacher)
        info["teacher_sha256"] = model.sha256
        unlabelled = [
            (subject, domain)
            for subjects, domain in ((fixed, first), (moving, second))
            for subject in subjects
            if not own_labels or not cohort.file(subject, "dseg").is_file()
        ]
        taught = taught_labels(volumes, unlabelled, networks, remark=remark)
    if labels:
        structures = cohort.structures or STRUCTURES
        info["structures"] = [[n, name] for n, name in sorted(structures.items())]

    def describe(batch, row):
        subjects = fixed[batch["fixed_index"][row]], moving[batch["moving_index"][row]]
        return f"fixed {subjects[0]} {domains[0]}, moving {subjects[1]} {domains[1]}"

    return Task(
        stage="reg",
        config=as_json(config),
        identity={**identity(config), **info},
        defaults=identity(
            RegistrationConfig(objective=ObjectiveConfig(loss=config.objective.loss))
        ),
        params=params,
        frozen=encoders,
        loss=sample_loss(config, encoder, hindbrain=hindbrain, spacing_mm=volumes.spacing_mm),
        batches=pair_batches(
            volumes,
            domains,
            fixed,
            moving,
            seed=config.optimizer.seed,
            batch_size=config.optimizer.batch_size,
            flip=mirrored if config.cohort.flip else None,
            both_contrasts=both_contrasts,
            labels=labels,
            taught=taught,
        ),
        arrays=Pair._fields,
        describe=describe,
        validate=_validation(config, volumes, pairs, remark) if pairs else None,
        begin=partial(write_template, volumes, fixed, first),
    )


def write_template(volumes: Volumes, subjects: list[str], domain: str, workdir: Path) -> None:
    """Write the mean of some subjects into a run's folder, unless it is there: what lies where.

    Raises:
        InputError: it cannot be written.
    """
    path = workdir / TEMPLATE
    if path.is_file():
        return
    scans = [volumes.scan(subject, domain) for subject in evenly_spaced(subjects)]
    affine = volumes.grid.affine
    heads = [Head(Volume(scan.image[..., 0], affine), scan.mask) for scan in scans]
    mean = average(heads, [np.eye(4)] * len(heads), volumes.grid)
    write_image(path, mean.image.array, mean.mask, volumes.grid)


def sample_loss(
    config: RegistrationConfig,
    encoder,
    *,
    spacing_mm: tuple[float, float, float],
    hindbrain: tuple[int, ...] = (),
):
    """(params, frozen, sample, key) → (loss, terms) of one pair at one random λ.

    `spacing_mm` is the grid's; `hindbrain` are the labels, as the batches number them, that
    `--drop-hindbrain-fraction` cuts off.
    """
    network = network_of(config.network).clone(form=config.network.convolution)
    domains = config.cohort.domain_pair

    def velocity_of(params, fixed, moving, lam):
        variables = {"params": params["network"]}
        return network.apply(variables, fixed[None], moving[None], lam[None])[0]

    def loss(params, frozen, sample, key):
        lam_key, similarity_key, vary_key = jax.random.split(key, 3)
        lam = config.network.lam
        fraction = config.objective.endpoint_fraction
        lam = draw_lam(lam_key, fraction) if lam is None else jax.numpy.float32(lam)
        pair, augmentation = Pair(**sample), config.augmentation
        if augmentation.pose_fraction > 0:
            vary_key, pose_key = jax.random.split(vary_key)
            pair = posed(pose_key, pair, augmentation.pose_fraction, spacing_mm=spacing_mm)
        if augmentation.mixed_anatomy_fraction > 0:
            vary_key, mixed_key = jax.random.split(vary_key)
            smooth = jax.numpy.float32(LAM if config.network.lam is None else config.network.lam)
            pair = with_mixed_anatomy(
                mixed_key,
                pair,
                augmentation.mixed_anatomy_fraction,
                lambda seen: velocity_of(params, seen.fixed, seen.moving, smooth),
                squarings=config.objective.squarings,
            )
        fixed_key, moving_key = jax.random.split(vary_key)
        shown = partial(
            augment,
            vary=augmentation.vary,
            synthetic=augmentation.synthetic_fraction,
            drop_hindbrain=augmentation.drop_hindbrain_fraction,
            hindbrain=hindbrain,
            slices=augmentation.slices_fraction,
            spacing_mm=spacing_mm,
        )
        fixed = shown(fixed_key, pair.fixed, pair.fixed_mask, pair.fixed_labels)
        moving = shown(moving_key, pair.moving, pair.moving_mask, pair.moving_labels)

        if config.second_pass_fraction > 0:
            second_key, similarity_key = jax.random.split(similarity_key)
            before = velocity_of(jax.lax.stop_gradient(params), fixed, moving, lam)
            before = jax.random.bernoulli(second_key, config.second_pass_fraction) * before
            moved = moved_image(moving, before, squarings=config.objective.squarings)
            velocity = before + velocity_of(params, fixed, moved, lam)
        else:
            velocity = velocity_of(params, fixed, moving, lam)
        features = FeatureExtractor(frozen, params["projections"]) if encoder else None
        similarity = make_similarity(config.objective, domains, encoder=encoder, features=features)
        total, terms = objective(similarity_key, pair, velocity, lam, similarity, config.objective)
        return total, {**terms, "lam": lam}

    return loss


def initialized_from(params: dict[str, Any], config: RegistrationConfig):
    """Parameters with those of `--init-from` put in, and their hash; projections where they fit.

    The type and the form of the convolutions and the one λ of a network may differ: parameters are
    float32 and of the same shapes in any case.

    Raises:
        InputError: a network of other parameters.
    """
    assert config.init_from is not None
    start = load_model(config.init_from)
    network = config.network
    stored = start.config.network
    for name in ("channels", "stem", "conditioning"):
        asked, there = getattr(network, name), getattr(stored, name)
        if asked != there:
            raise InputError(
                f"{config.init_from}: expected a network of {flag_of(name)}={asked}, got one of "
                f"{there}."
            )
    params = {**params, "network": start.params["network"]}
    earlier = start.params.get("projections")
    if earlier is not None and "projections" in params:
        same = jax.tree.map(np.shape, earlier) == jax.tree.map(np.shape, params["projections"])
        params = {**params, "projections": earlier} if same else params
    return params, parameters_sha256(start.params)


def _validation(config, volumes, pairs, remark):
    labels = sorted({(p, "dseg") for pair in pairs for p in pair})
    masked = sorted({(fixed, config.cohort.domain_pair[0]) for fixed, _ in pairs})
    native = Volumes(volumes.cohort, [*labels, *masked], shared=True, remark=remark)
    lam = config.network.lam
    lams = VALIDATION_LAMBDAS if lam is None else (lam,)

    def validate(params, frozen, step):
        model = Model(config, params, frozen, step, volumes.spacing_mm)
        names = ["dice_none"]
        names += [f"{what}_{lam:g}" for lam in lams for what in ("dice", "folds_percent")]
        rows, picture = np.zeros((0, len(names))), None
        for pair in distributed.share(pairs):
            row = []
            for score, u in score_pair(model, volumes, native, pair, lams):
                row += [score.mean_dice] + ([] if score.lam is None else [score.folds_percent])
                if pair == pairs[0] and score.lam == lams[len(lams) // 2]:
                    picture = progress_picture(model, volumes, pair, u, f"step {step}")
            rows = np.append(rows, [row], axis=0)
        means = [mean_known(column) for column in distributed.gather(rows).T]
        return dict(zip(names, map(float, means), strict=True)), picture

    return validate


def progress_picture(model: Model, volumes: Volumes, pair, displacement, title: str) -> np.ndarray:
    """Fixed, moving, moved, grid and Jacobian of a pair on the cohort's own grid, as pixels."""
    domains = model.config.cohort.domain_pair
    grid = Volumes(volumes.cohort, zip(pair, domains, strict=True))
    fixed, moving = (grid.scan(p, d).image for p, d in zip(pair, domains, strict=True))
    moved = np.asarray(warp(jax.numpy.asarray(moving), jax.numpy.asarray(displacement)))
    figure = basic.pair_progress(
        fixed[..., 0],
        moving[..., 0],
        moved[..., 0],
        displacement,
        title=f"{pair[0]} from {pair[1]}, {title}",
        spacing_mm=grid.spacing_mm,
    )
    return basic.to_rgb(figure)
