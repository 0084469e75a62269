"""Simulated cohorts: what is on disk, its geometry, its statistics, and that a seed fixes it."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg import spatial
from jaxreg.data import mni152
from jaxreg.data.synthetic import icbm, phantom, simulate
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.io import images

SMALL = {"shape": (24, 28, 24), "spacing_mm": 6.0}
MEDIUM = {"shape": (40, 48, 40), "spacing_mm": 4.0}


@pytest.fixture(scope="module")
def pair():
    """Two subjects at 4 mm."""
    return [phantom.phantom_subject(index, **MEDIUM) for index in range(2)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A small cohort on disk."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    return phantom.write_phantom_cohort(folder, **SMALL, subjects={"train": 2, "val": 1})


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def explained(image, by, mask, bins=64):
    """Share of the variance of `image` in the mask that its mean per bin of `by` explains."""
    values, bin_of = image[mask], np.minimum((by[mask] * bins).astype(int), bins - 1)
    counts = np.maximum(np.bincount(bin_of, minlength=bins), 1)
    means = np.bincount(bin_of, values, bins) / counts
    return 1 - np.mean((values - means[bin_of]) ** 2) / values.var()


def mean_dice(a, b, labels):
    scores = [2 * np.sum((a == k) & (b == k)) / np.sum((a == k) * 1 + (b == k)) for k in labels]
    return np.mean(scores)


def test_cohort_reads_back(cohort):
    assert json.loads((cohort / "dataset_description.json").read_text())["Name"] == "phantom"
    assert [row["split"] for row in table(cohort / "participants.tsv")] == ["train", "train", "val"]
    names = {int(row["index"]): row["name"] for row in table(cohort / "labels.tsv")}
    assert names == phantom.LABELS
    for row in table(cohort / "participants.tsv"):
        stem = cohort / row["participant_id"] / row["participant_id"]
        labels = images.read_labels(f"{stem}_dseg.nii.gz")
        np.testing.assert_allclose(labels.spacing_mm, 6.0, rtol=1e-6)
        for domain in ("T1w", "T2w"):
            image = images.read_image(f"{stem}_{domain}.nii.gz")
            assert image.array.shape == labels.array.shape == SMALL["shape"]
            np.testing.assert_array_equal(image.affine, labels.affine)
            np.testing.assert_array_equal(image.array > 0, labels.array > 0)
            assert abs(np.percentile(image.array[image.array > 0], 99.5) - 200) < 2


def test_affine_is_ras_and_centred(cohort):
    labels = images.read_labels(cohort / "sub-01" / "sub-01_dseg.nii.gz")
    middle = (np.asarray(labels.array.shape) - 1) / 2
    np.testing.assert_allclose(labels.affine @ [*middle, 1], [0, 0, 0, 1], atol=1e-5)
    assert np.all(np.diag(labels.affine)[:3] > 0)
    # The brain lies in the middle of the grid to within a centimetre or so.
    centroid = labels.affine[:3] @ [*np.argwhere(labels.array > 0).mean(axis=0), 1]
    assert np.abs(centroid).max() < 15


def test_same_seed_same_bytes(cohort, tmp_path):
    again = phantom.write_phantom_cohort(
        tmp_path / "again", **SMALL, subjects={"train": 2, "val": 1}
    )
    files = sorted(path.relative_to(cohort) for path in cohort.rglob("*") if path.is_file())
    assert len(files) == 3 + 3 * 3
    for file in files:
        assert (cohort / file).read_bytes() == (again / file).read_bytes(), file


def test_seed_and_index_change_the_subject():
    first = phantom.phantom_subject(0, **SMALL)
    for other in (
        phantom.phantom_subject(0, **SMALL, seed=1),
        phantom.phantom_subject(1, **SMALL),
    ):
        assert not np.array_equal(first.labels, other.labels)
        assert not np.array_equal(first.images["T1w"], other.images["T1w"])


def test_every_structure_is_present(pair):
    for subject in pair:
        assert set(np.unique(subject.labels)) == {0, 24, *phantom.LABELS}


def test_left_is_left(pair):
    number = {name: label for label, name in phantom.LABELS.items()}
    for subject in pair:
        for name, left in number.items():
            if name.startswith("Left-"):
                right = number[name.replace("Left-", "Right-")]
                x_left, x_right = (
                    np.argwhere(subject.labels == label)[:, 0].mean() for label in (left, right)
                )
                assert x_left < 20 < x_right, name


def test_anatomy_is_upright_and_not_symmetric(pair):
    labels = pair[0].labels
    cerebellum, cortex = (np.argwhere(np.isin(labels, k)).mean(0) for k in ([8, 47], [3, 42]))
    assert cerebellum[1] < cortex[1]
    assert cerebellum[2] < cortex[2]
    assert np.mean((labels > 0) != (labels[::-1] > 0)) > 0.005


def test_images_are_in_range_and_agree_with_the_labels(pair):
    for labels, image in ((s.labels, image) for s in pair for image in s.images.values()):
        assert image.shape == labels.shape
        assert image.dtype == np.float32
        assert labels.dtype == np.int32
        assert image.min() == 0
        assert 0.5 < image.max() <= 1
        np.testing.assert_array_equal(image > 0, labels > 0)


def test_contrasts_are_those_of_the_modality(pair):
    labels = pair[0].labels
    white, grey, fluid = (
        np.isin(labels, [2, 41]),
        np.isin(labels, [3, 42]),
        np.isin(labels, [4, 43]),
    )
    t1, t2 = (pair[0].images[domain] for domain in ("T1w", "T2w"))
    assert t1[white].mean() > t1[grey].mean() > t1[fluid].mean()
    assert t2[white].mean() < t2[grey].mean() < t2[fluid].mean()


def test_t2w_is_no_function_of_t1w(pair):
    for subject in pair:
        share = explained(subject.images["T2w"], subject.images["T1w"], subject.labels > 0)
        assert 0.1 < share < 0.9


def test_neighbours_differ_and_overlap(pair):
    assert 0.4 < mean_dice(pair[0].labels, pair[1].labels, phantom.LABELS) < 0.85


def test_without_deformation_subjects_are_closer(pair):
    still = [phantom.phantom_subject(n, **MEDIUM, deformation_mm=0.0).labels for n in range(2)]
    apart = mean_dice(pair[0].labels, pair[1].labels, phantom.LABELS)
    assert mean_dice(still[0], still[1], phantom.LABELS) > apart + 0.05


@pytest.mark.parametrize(("shape", "spacing_mm"), [((17, 40, 22), 5.0), ((16, 16, 24), 3.3)])
def test_any_shape_and_spacing(shape, spacing_mm):
    labels = phantom.phantom_subject(0, shape=shape, spacing_mm=spacing_mm).labels
    assert labels.shape == shape
    brain = labels > 0
    # The brain fits: it fills a good part of the grid and its border stays free.
    assert 0.1 < brain.mean() < 0.6
    assert not brain[0].any() and not brain[-1].any()


def test_the_labels_do_not_depend_on_the_domains():
    only = phantom.phantom_subject(0, **SMALL, domains=("FLAIR",))
    assert list(only.images) == ["FLAIR"]
    np.testing.assert_array_equal(only.labels, phantom.phantom_subject(0, **SMALL).labels)
    fluid, white = (np.isin(only.labels, k) for k in ([4, 43], [2, 41]))
    assert only.images["FLAIR"][fluid].mean() < only.images["FLAIR"][white].mean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"domains": ("PDw",)},
        {"domains": ()},
        {"shape": (4, 28, 24)},
        {"spacing_mm": 0.0},
        {"subjects": {"training": 2}},
        {"subjects": {"train": 0}},
    ],
)
def test_unusable_arguments_are_refused(wrong, tmp_path):
    with pytest.raises(InputError, match="expected"):
        phantom.write_phantom_cohort(tmp_path / "cohort", **{**SMALL, **wrong})
    assert not any(tmp_path.iterdir())


def test_existing_content_is_not_overwritten(tmp_path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="empty folder"):
        phantom.write_phantom_cohort(tmp_path / "cohort", **SMALL)
    assert [path.name for path in (tmp_path / "cohort").iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "cohort").mkdir()
    folder = phantom.write_phantom_cohort(tmp_path / "cohort", **SMALL, subjects={"test": 1})
    assert (folder / "sub-01" / "sub-01_dseg.nii.gz").is_file()


def test_an_interrupted_run_leaves_nothing(tmp_path):
    subject = phantom.phantom_subject(0, **SMALL)

    def interrupted(index):
        if index == 1:
            raise KeyboardInterrupt
        return subject

    with pytest.raises(KeyboardInterrupt):
        simulate.write_cohort(
            tmp_path / "cohort",
            interrupted,
            subjects={"train": 2},
            labels=phantom.LABELS,
            affine=np.eye(4),
            name="interrupted",
        )
    assert not any(tmp_path.iterdir())


def test_random_displacement_is_a_diffeomorphism_without_affine_part():
    u = simulate.random_displacement(
        np.random.default_rng(0), (40, 48, 36), spacing_mm=4.0, rms_mm=4.0
    )
    assert u.shape == (40, 48, 36, 3)
    determinant = np.asarray(spatial.jacobian_determinant(jnp.asarray(u)))
    assert determinant.min() > 0
    # exp(v) is longer or shorter than v by little at this smoothness; a voxel is 4 mm.
    assert 0.7 < np.sqrt(np.sum(u**2, axis=-1).mean()) < 1.3
    assert np.abs(u[10:30, 12:36, 9:27].mean(axis=(0, 1, 2))).max() * 4.0 < 1.5


def test_scipy_exponential_and_warp_agree_with_spatial():
    rng = np.random.default_rng(0)
    fields = [
        simulate.smooth_field(rng, (12, 14, 10), spacing_mm=1.0, scale_mm=3.0) for _ in range(3)
    ]
    velocity = np.stack(fields, axis=-1)
    wanted = spatial.exponentiate(jnp.asarray(velocity), squarings=5)
    # float32 weights of linear interpolation, repeated five times.
    np.testing.assert_allclose(simulate.exponentiate(velocity), wanted, atol=1e-4)
    labels = rng.integers(0, 5, (12, 14, 10, 1)).astype(np.int32)
    wanted = spatial.warp(jnp.asarray(labels), jnp.asarray(velocity), order=0)
    assert np.mean(simulate.warp(labels, velocity, order=0) == wanted) > 0.999


def test_smooth_field_has_its_moments_and_smoothness():
    field = simulate.smooth_field(
        np.random.default_rng(0), (40, 40, 40), spacing_mm=2.0, scale_mm=10.0
    )
    assert abs(field.mean()) < 0.3
    assert 0.7 < field.std() < 1.3
    # White noise smoothed by σ has a gradient of standard deviation 1 / (√2 σ) per axis.
    slope = np.gradient(field, 2.0, axis=0).std()
    assert 0.6 < slope * np.sqrt(2) * 10.0 < 1.4


def test_blocks_agree_with_a_loop():
    rng = np.random.default_rng(0)
    image, labels = rng.random((4, 6, 8)), rng.integers(0, 3, (4, 6, 8))
    mean, mode = resampling.block_mean(image, 2), resampling.block_mode(labels, 2)
    for index in np.ndindex(2, 3, 4):
        block = tuple(slice(2 * i, 2 * i + 2) for i in index)
        np.testing.assert_allclose(mean[index], image[block].mean())
        counts = np.bincount(labels[block].ravel(), minlength=3)
        assert counts[mode[index]] == counts.max()


def test_template_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(mni152, "find_mni152", lambda: None)
    with pytest.raises(InputError, match="pip install ./packages/jaxreg-mni152"):
        icbm.write_template_cohort(tmp_path / "cohort")


@pytest.mark.skipif(mni152.find_mni152() is None, reason="the template mni152 is not installed")
def test_template_cohort(tmp_path):
    folder = icbm.write_template_cohort(tmp_path / "cohort", spacing_mm=6.0, subjects={"train": 2})
    names = {int(row["index"]): row["name"] for row in table(folder / "labels.tsv")}
    label = {name: number for number, name in names.items()}
    read = {
        (n, kind): images.read(folder / f"sub-0{n}" / f"sub-0{n}_{kind}.nii.gz")
        for n in (1, 2)
        for kind in ("T1w", "T2w", "dseg")
    }
    shapes = {image.array.shape for image in read.values()}
    assert len(shapes) == 1 and all(n % 8 == 0 for n in shapes.pop())
    labels = [read[n, "dseg"].array for n in (1, 2)]
    left, right = label["Left-Superior-Frontal"], label["Right-Superior-Frontal"]
    for array in labels:
        assert np.argwhere(array == left)[:, 0].mean() < np.argwhere(array == right)[:, 0].mean()
        assert set(names) <= set(np.unique(array))
    assert 0.2 < mean_dice(labels[0], labels[1], names) < 0.85
    t1, t2 = (read[1, domain].array / 255 for domain in ("T1w", "T2w"))
    np.testing.assert_array_equal(t1 > 0, t2 > 0)
    assert 0.1 < explained(t2, t1, t1 > 0) < 0.9
    assert t2[labels[0] == 74].size and np.corrcoef(t1[t1 > 0], t2[t1 > 0])[0, 1] < 0.5
