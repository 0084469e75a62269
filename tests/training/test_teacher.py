"""A segmentation network as teacher: whose labels it gives, their weight, and a run with it."""

import functools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.cli import main
from jaxreg.configuration.augmentation import AugmentationConfig
from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import (
    CohortConfig,
    OptimizerConfig,
    RegistrationConfig,
    SessionConfig,
)
from jaxreg.data.cohort import read_cohort
from jaxreg.data.label_codes import CLASSES, NUMBERS, REST
from jaxreg.data.pipeline import pair_batches
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import read_image, read_labels, write
from jaxreg.losses.objective import objective
from jaxreg.losses.similarity import make_similarity
from jaxreg.models.model import init_params
from jaxreg.models.release import load_model, write_release
from jaxreg.pair import Pair
from jaxreg.registration.deformable.optimization import zero_velocity
from jaxreg.segmentation.brain import FoundBrain, found_brain
from jaxreg.segmentation.networks import BUNDLED, load_named_segmentation
from jaxreg.segmentation.template import GRID
from jaxreg.training import registration, teacher
from jaxreg.training.registration import sample_loss
from jaxreg.training.step import TrainState, data_mesh, make_optimizer, make_step

SHAPE = (24, 28, 20)
DOMAINS = ("T1w", "T2w")
STEPS = ["train", "--stage=reg", "--loss=lncc", "--validate-every=0", "--teacher=bundled"]


@pytest.fixture
def cohort(tmp_path):
    """A cohort in which nobody but sub-01 has labels; the structures are two of FreeSurfer's."""
    subjects = {"train": 3, "val": 0, "test": 0}
    folder = write_phantom_cohort(
        tmp_path / "cohort", shape=SHAPE, spacing_mm=8.0, subjects=subjects
    )
    (folder / "labels.tsv").write_text("index\tname\n2\twhite\n42\tcortex\n")
    for path in sorted(folder.glob("sub-*/*_dseg.nii.gz")):
        labels = read_labels(path)
        half = np.arange(SHAPE[0])[:, None, None] < SHAPE[0] // 2
        inside = np.where(labels.array > 0, np.where(half, 2, 42), 0).astype(np.uint8)
        if path.parent.name == "sub-01":
            write(path, Volume(inside, labels.affine))
        else:
            path.unlink()
    return folder


def brain_of(image: Volume, _) -> FoundBrain:
    """What a network would see that calls the left of a bright image white, its right cortex."""
    if image.array.max() < 1e-3:
        raise InputError("expected a brain, found none")
    codes = np.zeros(GRID.shape, np.uint8)
    codes[:40], codes[40:] = NUMBERS.index(2), NUMBERS.index(42)
    codes[:, :, :4], codes[:, :, 4:8] = REST, NUMBERS.index(17)  # fluid and a hippocampus
    span = np.diag([*np.array(SHAPE) * 8.0 / (np.array(GRID.shape) * 2.0), 1.0])
    span[:3, 3] = image.affine[:3, 3] - 4 - span[:3, :3] @ (GRID.affine[:3, 3] - 1)
    return found_brain(
        np.eye(CLASSES, dtype=np.float32)[codes], span, np.zeros(GRID.shape, np.float32), fit_mm=1.0
    )


@pytest.fixture
def taught(monkeypatch):
    """The teacher of a command, in place of the bundled network, which knows no phantoms."""
    monkeypatch.setattr(teacher, "find_brain", brain_of)


def test_labels_are_numbered_as_the_cohorts_and_lie_on_the_training_grid(cohort, taught):
    images = [("sub-02", "T1w"), ("sub-03", "T2w")]
    volumes = Volumes(read_cohort(cohort), images, spacing_mm=10.0)
    found = teacher.taught_labels(volumes, images, load_named_segmentation(Path(BUNDLED))[1])
    assert set(found) == set(images)
    labels = found["sub-02", "T1w"]
    assert labels.shape == volumes.shape != SHAPE and labels.dtype == np.uint8
    x = labels.shape[0]
    assert (labels[: x // 2 - 1, :, 3:] == 1).mean() > 0.8  # white is the cohort's first structure
    assert (labels[x // 2 + 1 :, :, 3:] == 2).mean() > 0.8
    assert set(np.unique(labels)) == {0, 1, 2}  # neither fluid nor what the cohort does not name


def test_an_image_without_a_brain_is_named_and_a_cohort_without_any_refused(cohort, taught):
    path = cohort / "sub-02" / "sub-02_T1w.nii.gz"
    image = read_image(path)
    volumes = Volumes(read_cohort(cohort), [("sub-02", "T1w"), ("sub-03", "T1w")])
    write(path, Volume(np.zeros_like(image.array), image.affine))
    networks, lines = load_named_segmentation(Path(BUNDLED))[1], []
    images = [("sub-02", "T1w"), ("sub-03", "T1w")]
    found = teacher.taught_labels(volumes, images, networks, remark=lines.append)
    assert not found[images[0]].any() and found[images[1]].any()
    assert len(lines) == 1 and "sub-02_T1w.nii.gz: the teacher gives no labels" in lines[0]
    with pytest.raises(InputError, match="finds no brain in any"):
        teacher.taught_labels(volumes, images[:1], networks)


def test_pairs_say_whether_the_teacher_made_the_labels_of_either(cohort):
    people = ["sub-01", "sub-02", "sub-03"]
    images = [(p, d) for p in people for d in DOMAINS]
    volumes = Volumes(read_cohort(cohort), [*images, ("sub-01", "dseg")])
    own = {image: np.full(SHAPE, 2, np.uint8) for image in images if image[0] == "sub-03"}
    batches = pair_batches(
        volumes, DOMAINS, people, people, seed=1, batch_size=1, flip=None, labels=True, taught=own
    )
    seen = set()
    for _ in range(24):
        batch = next(batches)
        who = people[batch["fixed_index"][0]], people[batch["moving_index"][0]]
        assert bool(batch["taught"][0]) == ("sub-03" in who)
        for role, subject in zip(("fixed", "moving"), who, strict=True):
            values = set(np.unique(batch[f"{role}_labels"]))
            wanted = {"sub-01": {0, 1, 2}, "sub-02": {0}, "sub-03": {2}}[subject]
            assert values == wanted, (role, subject)
        seen.add(who)
    assert len(seen) == 6


@pytest.fixture(scope="module")
def pair():
    """Two label maps of three boxes each, and images without any structure."""
    fixed, moving = np.zeros((2, *SHAPE), np.uint8)
    for k, start in enumerate((2, 9, 15), start=1):
        fixed[start : start + 5, 5:20, 4:15] = k
        moving[start + 1 : start + 6, 7:23, 3:13] = k
    flat, brain = jnp.full((*SHAPE, 1), 0.5), jnp.ones(SHAPE, bool)
    labels = (jnp.asarray(fixed), jnp.asarray(moving))
    return Pair(flat, flat, brain, brain, fixed_labels=labels[0], moving_labels=labels[1])


def value_of(pair, config, velocity):
    similarity = make_similarity(config, DOMAINS)
    lam = jnp.asarray(0.25, velocity.dtype)
    return objective(jax.random.key(3), pair, velocity, lam, similarity, config)


def test_taught_pairs_count_by_the_teachers_weight_and_others_by_that_of_labels(pair):
    config = ObjectiveConfig(loss="mse", label_weight=2.0, teacher_weight=5.0)
    velocity = zero_velocity(SHAPE)
    values = {}
    for name, taught in (("own", False), ("teacher", True), ("no teacher", None)):
        seen = pair._replace(taught=None if taught is None else jnp.asarray(taught))
        total, terms = jax.jit(functools.partial(value_of, seen, config))(velocity)
        missing = 1 - float(terms["label_dice"])
        assert 0.1 < missing < 0.9
        values[name] = float(total) / (0.75 * missing)  # images and field alike: labels alone count
    assert values == pytest.approx({"own": 2.0, "teacher": 5.0, "no teacher": 2.0}, rel=1e-5)
    unlabelled = pair._replace(moving_labels=0 * pair.moving_labels, taught=jnp.asarray(True))
    assert float(value_of(unlabelled, config, velocity)[0]) == 0


def test_the_gradient_of_the_teachers_term_is_its_slope_in_double_precision(pair):
    config = ObjectiveConfig(loss="mse", teacher_weight=3.0)
    with jax.enable_x64(True):
        seen = pair._replace(taught=jnp.asarray(True))
        start = jax.random.normal(jax.random.key(0), zero_velocity(SHAPE).shape, jnp.float64)
        along = jax.random.normal(jax.random.key(1), start.shape, jnp.float64)
        value = jax.jit(lambda t: value_of(seen, config, 0.3 * start + t * along)[0])
        slope, h = float(jax.grad(value)(0.0)), 1e-7
        numeric = (float(value(h)) - float(value(-h))) / (2 * h)
    assert abs(numeric) > 1e-2
    # Larger steps cross the bends of linear sampling; rounding of the value by h is 1e-8.
    assert slope == pytest.approx(numeric, rel=1e-5)


def test_a_run_with_a_teacher_resumes_bitwise_and_its_release_loads(cohort, taught, tmp_path):
    argv = [*STEPS, f"--data={cohort}", "--label-weight=1", "--teacher-weight=2"]
    argv += ["--steps=4", "--checkpoint-every=2"]
    for name in ("whole", "broken"):
        assert main([*argv, f"--workdir={tmp_path / name}"]) == 0
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "4")  # as an interruption leaves it
    assert main([*argv, f"--workdir={tmp_path / 'broken'}"]) == 0
    models = [load_model(tmp_path / name) for name in ("whole", "broken")]
    one, other = (jax.tree.leaves(model.params) for model in models)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    write_release(models[0], tmp_path / "release", models[0].defaults, about="a test")
    described = json.loads((tmp_path / "release" / "model.json").read_text())
    assert described["config"]["teacher"] == "bundled"
    assert load_model(tmp_path / "release").config.objective.teacher_weight == 2


def taught_pairs(folder, **settings):
    """Whether the teacher has a part in each of some pairs of a run with it."""
    config = RegistrationConfig(
        cohort=CohortConfig(data=folder),
        teacher=Path(BUNDLED),
        session=SessionConfig(validate_every=0),
        objective=ObjectiveConfig(
            loss="lncc", teacher_weight=2.0, label_weight=settings.pop("label_weight", 0.0)
        ),
        augmentation=AugmentationConfig(**settings),
    )
    batches = registration.registration_task(config, read_cohort(folder)).batches
    return [bool(next(batches)["taught"][0]) for _ in range(8)]


@pytest.mark.parametrize("settings", [{}, {"synthetic_fraction": 0.2}])
def test_without_a_weight_of_labels_the_teacher_labels_all(cohort, taught, settings):
    for subject in ("sub-02", "sub-03"):  # all have labels of their own
        shutil.copy(
            cohort / "sub-01" / "sub-01_dseg.nii.gz", cohort / subject / f"{subject}_dseg.nii.gz"
        )
    assert all(taught_pairs(cohort, **settings))
    assert not any(taught_pairs(cohort, **settings, label_weight=1.0))


def test_a_teacher_serves_a_cohort_that_has_no_labels_at_all(cohort, taught):
    (cohort / "labels.tsv").unlink()
    (cohort / "sub-01" / "sub-01_dseg.nii.gz").unlink()
    settings = {"synthetic_fraction": 0.2, "drop_hindbrain_fraction": 0.2, "label_weight": 1.0}
    assert all(taught_pairs(cohort, **settings))


def test_a_weight_of_labels_that_no_pair_can_use_is_refused(cohort):
    config = RegistrationConfig(
        cohort=CohortConfig(data=cohort), objective=ObjectiveConfig(loss="lncc", label_weight=1.0)
    )
    reason = "two subjects of the train split with labels .* got 1 fixed and 1 moving"
    with pytest.raises(InputError, match=reason):
        registration.registration_task(config, read_cohort(cohort))


def test_another_teacher_is_another_run(cohort, taught, tmp_path, monkeypatch, capsys):
    argv = [*STEPS, f"--data={cohort}", f"--workdir={tmp_path / 'run'}", "--steps=1"]
    assert main(argv) == 0
    networks = load_named_segmentation(Path(BUNDLED))[1]
    other = SimpleNamespace(sha256={"fine": "0"}), networks
    monkeypatch.setattr(registration, "load_named_segmentation", lambda folder: other)
    assert main(argv) == 2
    assert "--teacher: expected" in capsys.readouterr().err


def test_a_weight_without_a_teacher_is_refused():
    with pytest.raises(InputError, match="--teacher-weight: read only with --teacher"):
        RegistrationConfig(objective=ObjectiveConfig(teacher_weight=2.0))


def test_steps_with_the_teacher_alone_raise_the_overlap(pair):
    config = RegistrationConfig(
        objective=ObjectiveConfig(loss="mse", teacher_weight=5.0), teacher=Path("bundled")
    )
    params = init_params(jax.random.key(0), config, None)
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=5), 60)
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    images = [pair.fixed_labels / 3, pair.moving_labels / 3]  # what the network sees, not the loss
    seen = pair._replace(taught=jnp.asarray(True))
    seen = seen._replace(fixed=images[0][..., None], moving=images[1][..., None])
    batch = {k: v[None] for k, v in seen._asdict().items() if v is not None}
    task = sample_loss(config, None, spacing_mm=(8.0, 8.0, 8.0))
    step = make_step(task, optimizer, data_mesh(1), seed=0)
    overlap = []
    for _ in range(40):
        state, metrics = step(state, {}, batch)
        overlap.append(float(metrics["label_dice"]))
    assert np.mean(overlap[-5:]) > np.mean(overlap[:5]) + 0.1
