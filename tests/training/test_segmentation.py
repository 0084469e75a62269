"""The segmentation stage: its loss, its batches, resuming, overfitting, refusals."""

import functools
import gzip
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxreg.cli import main
from jaxreg.data.heads import Head, as_bytes, find_cohorts, head_of, read_heads, with_clusters
from jaxreg.data.label_codes import (
    CLASSES,
    FIRST_CLUSTER,
    FIRST_HEAD,
    NUMBERS,
    REST,
    decode,
    encode,
)
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.errors import InputError
from jaxreg.models.checkpoint import Checkpoints
from jaxreg.models.segmentation_model import read_segmentation_model, write_segmentation_model
from jaxreg.networks.segmentation_unet import SegmentationUNet
from jaxreg.training.atlas import atlas_of, grid_in_world
from jaxreg.training.augmentation.synthesis.atlas import COARSE, FINE, View
from jaxreg.training.augmentation.synthesis.example import training_example
from jaxreg.training.segmentation import SubjectBatches, dice_and_cross_entropy
from jaxreg.training.segmentation_validation import dice_of_codes, montage, read_held_out

SEG = ["train", "--stage=seg", "--resolution=coarse", "--voxels=corner", "--channels=4,4"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    subjects = {"train": 2, "val": 1, "test": 0}
    folder = tmp_path_factory.mktemp("data") / "cohort"
    return write_phantom_cohort(folder, shape=(24, 28, 20), spacing_mm=8.0, subjects=subjects)


def test_more_voxels_than_32_bits_can_count_are_refused():
    codes = np.broadcast_to(np.uint8(1), (1500, 1500, 1000))
    image = np.broadcast_to(np.uint8(9), codes.shape)
    one = Head("sub-01", codes, np.eye(4), {})
    pictures = Head("sub-02", codes[:10], np.eye(4), {"T1w": image})
    for heads, what in (([one], "label maps"), ([pictures], "images")):
        with pytest.raises(InputError, match=f"sub-0. and others: .* voxels in all {what}"):
            atlas_of(heads, FINE)


def test_what_is_unusual_in_a_file_is_remarked(cohort, tmp_path):
    folder = tmp_path / "cohort"
    shutil.copytree(cohort, folder)
    image = next(folder.glob("sub-01*/*_T1w.nii.gz"))
    image.write_bytes(gzip.decompress(image.read_bytes()))
    said: list[str] = []
    heads = read_heads(find_cohorts([folder])[0], "train", remark=said.append)
    assert len(heads) == 2 and len(said) == 1
    assert image.name in said[0] and "not compressed" in said[0]


def test_codes_are_there_and_back_again():
    numbers = np.array([0, 2, 60, 24, 1005, 2010, 77, 511, 530])[:, None, None]
    codes = encode(numbers)[:, 0, 0]
    assert codes.tolist()[:4] == [0, 1, NUMBERS.index(60), REST]
    assert codes[4] == NUMBERS.index(3) and codes[5] == NUMBERS.index(42)
    assert codes[6] == REST and codes[7] == FIRST_HEAD + 11 and codes[8] == FIRST_HEAD + 30
    np.testing.assert_array_equal(decode(codes[:4]), [0, 2, 60, 24])


def test_the_loss_is_one_minus_dice_of_the_classes_there_plus_cross_entropy():
    scores = jax.random.normal(jax.random.key(0), (4, 5, 6, 4))
    codes = jax.random.randint(jax.random.key(1), (4, 5, 6), 0, 3).astype(jnp.uint8)
    loss, terms = jax.jit(dice_and_cross_entropy)(scores, codes)
    p = np.asarray(jax.nn.softmax(scores), np.float64).reshape(-1, 4)
    truth = np.eye(4)[np.asarray(codes).ravel()]
    entropy = -np.log(p[truth > 0]).mean()
    dice = [2 * (p * truth)[:, c].sum() / (p + truth)[:, c].sum() for c in (1, 2)]
    np.testing.assert_allclose(loss, 1 - np.mean(dice) + entropy, rtol=1e-4)
    np.testing.assert_allclose(terms["soft_dice"], np.mean(dice), rtol=1e-4)


def test_dice_of_an_answer_is_nan_where_the_labels_lack_a_structure():
    codes = jnp.zeros((4, 4, 4), jnp.uint8).at[:2].set(1)
    answer = jnp.zeros((4, 4, 4), jnp.uint8).at[:1].set(1).at[1:2].set(2)
    dice = np.asarray(jax.jit(dice_of_codes)(answer, codes))
    np.testing.assert_allclose(dice[:2], [1, 2 / 3], atol=1e-6)
    assert np.isnan(dice[2:]).all() and len(dice) == CLASSES


def test_batches_depend_on_the_position_alone_and_small_cohorts_count():
    batches = SubjectBatches([90, 10], 4, seed=3)
    drawn = [next(batches)["subject"] for _ in range(300)]
    later = SubjectBatches([90, 10], 4, seed=3)
    later.set_state({"position": 7})
    np.testing.assert_array_equal(next(later)["subject"], drawn[7])
    assert later.get_state() == {"position": 8}
    share = np.mean(np.concatenate(drawn) >= 90)
    assert abs(share - np.sqrt(10) / (np.sqrt(10) + np.sqrt(90))) < 0.05


def test_a_head_is_split_into_classes_of_intensity_and_air_stays_air():
    x, y, z = np.indices((40, 40, 40)) - 19.5
    radius = np.sqrt(x**2 + y**2 + z**2)
    image = np.select([radius < 10, radius < 13, radius < 16], [120, 5, 200], 1).astype(np.uint8)
    codes = (radius < 10).astype(np.uint8)
    split = with_clusters(codes, image)
    assert (split[radius < 10] == 1).all() and (split[radius > 18] == 0).all()
    bone, scalp = split[(radius > 11) & (radius < 12.5)], split[(radius > 13.5) & (radius < 15)]
    assert (bone >= FIRST_CLUSTER).all()  # dark, and yet no air: the head is closed
    assert bone.max() < scalp.min()
    assert head_of(image)[radius < 15].all()
    np.testing.assert_array_equal(as_bytes(image.astype(np.float32)), image)


def test_a_subject_is_laid_onto_the_template_whatever_its_pose(cohort):
    head = read_heads(find_cohorts([cohort])[0], "train")[0]
    turn = np.array([[0.0, -1, 0, 9], [1, 0, 0, -20], [0, 0, 1, 30], [0, 0, 0, 1]])
    moved = head._replace(affine=turn @ head.affine)
    for view in (FINE, COARSE):
        laid, again = grid_in_world(head, view), grid_in_world(moved, view)
        if view.any_pose:  # only the middle follows
            laid, again = laid[:, 3], again[:, 3]
        np.testing.assert_allclose(again, turn @ laid, atol=1e-4)


def test_an_interrupted_run_ends_like_one_that_was_not(cohort, tmp_path, capsys):
    argv = [*SEG, f"--data={cohort}", "--checkpoint-every=1", "--validate-every=2"]
    for name in ("whole", "parts"):
        assert main([*argv, f"--workdir={tmp_path / name}", "--steps=2"]) == 0
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "2")
    assert main([*argv, f"--workdir={tmp_path / 'parts'}", "--steps=2"]) == 0
    out = capsys.readouterr().out
    assert "resumed at step 1" in out
    sums = [tmp_path / name / "checkpoints" / "2" / "SHA256SUMS" for name in ("whole", "parts")]
    assert all(path.is_file() for path in sums)
    network = SegmentationUNet((4, 4), CLASSES)
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 16, 1)))["params"]
    leaves = [
        jax.tree.leaves(
            Checkpoints(tmp_path / name).params(2, {"trainable": like, "frozen": {}})["trainable"]
        )
        for name in ("whole", "parts")
    ]
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    rows = (tmp_path / "whole" / "validation.csv").read_text().splitlines()
    assert rows[0].startswith("step,dice_cohort_") and len(rows) == 2


def test_the_networks_of_two_runs_are_read_and_released(cohort, tmp_path):
    argv = [*(a for a in SEG if a != "--resolution=coarse"), f"--data={cohort}"]
    argv += ["--steps=1", "--validate-every=0"]
    for resolution in ("coarse", "fine"):
        workdir = f"--workdir={tmp_path / 'runs' / resolution}"
        assert main([*argv, f"--resolution={resolution}", workdir]) == 0
    model = read_segmentation_model(tmp_path / "runs")
    (tmp_path / "release").mkdir()
    write_segmentation_model(tmp_path / "release", model.params, model.channels, about="a test")
    released = read_segmentation_model(tmp_path / "release")
    assert released.channels == model.channels == {"coarse": (4, 4), "fine": (4, 4)}
    for a, b in zip(*(jax.tree.leaves(m.params) for m in (model, released)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)  # half precision
    (tmp_path / "runs" / "fine").rename(tmp_path / "runs" / "other")
    (tmp_path / "runs" / "coarse").rename(tmp_path / "runs" / "fine")
    (tmp_path / "runs" / "other").rename(tmp_path / "runs" / "coarse")
    with pytest.raises(InputError, match="expected a run of --resolution=coarse"):
        read_segmentation_model(tmp_path / "runs")


def test_a_run_starts_from_the_networks_of_another(cohort, tmp_path, capsys):
    argv = [*SEG, f"--data={cohort}", "--validate-every=0"]
    for resolution in ("coarse", "fine"):
        workdir = f"--workdir={tmp_path / 'start' / resolution}"
        assert main([*argv, f"--resolution={resolution}", workdir, "--steps=1"]) == 0
    start = read_segmentation_model(tmp_path / "start")
    again = [*argv, f"--init-from={tmp_path / 'start'}", f"--workdir={tmp_path / 'again'}"]
    assert main([*again, "--steps=1", "--learning-rate=1e-7"]) == 0
    like = {"trainable": start.params["coarse"], "frozen": {}}
    trained = Checkpoints(tmp_path / "again").params(1, like)["trainable"]
    for a, b in zip(*map(jax.tree.leaves, (start.params["coarse"], trained)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-7)
    capsys.readouterr()
    assert main([*argv, f"--workdir={tmp_path / 'again'}", "--steps=2"]) == 2
    assert "--init-from: expected" in capsys.readouterr().err
    assert (
        main([*again, "--steps=1", "--channels=8,4", "--workdir=" + str(tmp_path / "other")]) == 2
    )
    assert "expected a network of --channels=8,4, got one of 4,4." in capsys.readouterr().err
    assert main([*argv, "--init-from=bundled", f"--workdir={tmp_path / 'bundled'}"]) == 2
    assert "expected a network of --channels=4,4, got one of " in capsys.readouterr().err


def test_cohorts_of_one_name_are_scored_apart(cohort, tmp_path):
    again = tmp_path / "heads" / cohort.name
    shutil.copytree(cohort, again)
    held_out = read_held_out(find_cohorts([cohort, again]), COARSE, 1)
    groups = {item.group.removesuffix("_T1w").removesuffix("_T2w") for item in held_out}
    assert groups == {f"{cohort.parent.name}_{cohort.name}", f"heads_{cohort.name}"}


def test_one_subject_can_be_learnt(cohort):
    head = read_heads(find_cohorts([cohort])[0], "train")[0]
    view = View((16, 16, 16), 12.0, False, 0.0)
    atlas = jax.tree.map(jnp.asarray, atlas_of([head], view))
    network = SegmentationUNet((24, 32), CLASSES)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 16, 1)))["params"]
    make = jax.jit(lambda k: training_example(k, atlas, jnp.int32(0), view, 0.0))
    image, codes = make(jax.random.key(5))
    optimizer = optax.adam(1e-2)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        def loss(params):
            scores = network.apply({"params": params}, image[None, ..., None])
            assert isinstance(scores, jax.Array)
            return dice_and_cross_entropy(scores[0], codes)

        (_, terms), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, terms

    state, dice = optimizer.init(params), []
    for _ in range(150):
        params, state, terms = step(params, state)
        dice.append(float(terms["soft_dice"]))
    assert dice[0] < 0.1 and dice[-1] > 0.6


def test_a_picture_shows_a_row_for_each_image():
    image = np.random.default_rng(0).random((8, 10, 6), np.float32)
    codes = np.ones((8, 10, 6), np.uint8)
    picture = montage([(image, codes, codes), (image, codes, codes)])
    assert picture.shape == (2 * 2 * 10, 2 * 9 * 10, 3) and picture.dtype == np.uint8


def test_what_cannot_be_learnt_from_is_refused(cohort, tmp_path, capsys):
    assert main(SEG) == 2
    assert "--data: expected folders of labelled subjects" in capsys.readouterr().err
    assert main([*SEG, f"--data={tmp_path}"]) == 2
    assert "expected participants.tsv" in capsys.readouterr().err
    assert main([*SEG, f"--data={cohort}", "--resolution=finer"]) == 2
    assert "--resolution" in capsys.readouterr().err
    shutil.copytree(cohort, tmp_path / "bare")
    for path in (tmp_path / "bare").glob("*/*_dseg.nii.gz"):
        path.unlink()
    assert main([*SEG, f"--data={tmp_path / 'bare'}"]) == 2
    assert "expected _dseg volumes" in capsys.readouterr().err


def test_the_key_decides_everything(cohort):
    head = read_heads(find_cohorts([cohort])[0], "train")[0]
    view = View((8, 8, 8), 24.0, True, 0.3)
    atlas = jax.tree.map(jnp.asarray, atlas_of([head], view))
    make = jax.jit(lambda k: training_example(jax.random.key(k), atlas, jnp.int32(0), view, 0.3))
    np.testing.assert_array_equal(make(3)[0], make(3)[0])
    assert not np.array_equal(make(3)[0], make(4)[0])
