"""Cohorts: tables, refusals by name, volumes on one grid, pairs, fingerprints."""

import shutil

import numpy as np
import pytest

from jaxreg.data.cohort import (
    Cohort,
    fingerprint,
    neighbour_pairs,
    read_cohort,
    scoring_gaps,
    training_gap,
)
from jaxreg.data.heads import find_cohorts
from jaxreg.data.intensities import normalize
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io import images

SHAPE = (6, 8, 5)
AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -7], [0, 0, 2, 3], [0, 0, 0, 1]])
PEOPLE = {"sub-01": "train", "sub-02": "train", "sub-03": "val", "sub-04": "test"}
STRUCTURES = {2: "white", 3: "grey matter"}


def put(folder, subject, kind, array, affine=AFFINE):
    (folder / subject).mkdir(exist_ok=True)
    images.write(folder / subject / f"{subject}_{kind}.nii.gz", Volume(array, affine))


def brain(seed, shape=SHAPE):
    """Intensities 1 to 2 in the middle, 0 on the border."""
    array = np.zeros(shape, np.float32)
    inner = tuple(slice(1, -1) for _ in shape)
    array[inner] = 1 + np.random.default_rng(seed).random(array[inner].shape)
    return array


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "cohort"
    folder.mkdir()
    rows = "".join(f"{p}\t{s}\n" for p, s in PEOPLE.items())
    (folder / "participants.tsv").write_text("participant_id\tsplit\n" + rows)
    rows = "".join(f"{i}\t{n}\n" for i, n in STRUCTURES.items())
    (folder / "labels.tsv").write_text("index\tname\n" + rows)
    for seed, subject in enumerate(PEOPLE):
        put(folder, subject, "T1w", brain(seed))
        if subject != "sub-02":
            put(folder, subject, "T2w", brain(seed + 10))
        put(folder, subject, "dseg", (3 * (brain(seed) > 1.5)).astype(np.uint8))
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A cohort of one's own, to be damaged."""
    return shutil.copytree(template, tmp_path / "cohort")


def refuses(function, *names):
    with pytest.raises(InputError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message and all(name in message for name in names), message


def test_tables_are_read(template):
    assert read_cohort(str(template)) == Cohort(template, PEOPLE, STRUCTURES)


def test_members_have_the_split_and_the_domain(template):
    cohort = read_cohort(template)
    assert cohort.members("train", "T1w") == ["sub-01", "sub-02"]
    assert cohort.members("train", "T2w") == ["sub-01"]
    assert cohort.members("test", "dseg") == ["sub-04"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_mark_line_ends_blank_lines_and_column_order_do_not_matter(
    folder, mark, newline
):
    rows = ["split\tage\tparticipant_id", "train\t30\tsub-01", "", "test\tn/a\tsub-04", ""]
    (folder / "participants.tsv").write_bytes((mark + newline.join(rows)).encode())
    rows = ["index\tname", "2\twhite", "3\tgrey matter", ""]
    (folder / "labels.tsv").write_bytes((mark + newline.join(rows)).encode())
    cohort = read_cohort(folder)
    assert cohort.participants == {"sub-01": "train", "sub-04": "test"}
    assert cohort.structures == STRUCTURES


def test_a_cohort_without_labels_table_has_no_structures(folder):
    (folder / "labels.tsv").unlink()
    assert read_cohort(folder).structures == {}


def test_a_missing_folder_a_file_in_its_place_and_a_missing_table_are_named(tmp_path):
    refuses(lambda: read_cohort(tmp_path / "absent"), str(tmp_path / "absent"))
    (tmp_path / "file").touch()
    refuses(lambda: read_cohort(tmp_path / "file"), str(tmp_path / "file"))
    refuses(lambda: read_cohort(tmp_path), str(tmp_path / "participants.tsv"), "jaxreg prepare")


@pytest.mark.parametrize("table", [None, "participant_id\tage\nsub-01\t33\n"])
def test_of_a_bids_dataset_the_command_that_prepares_it_is_named(table, tmp_path):
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    if table is not None:
        (tmp_path / "participants.tsv").write_text(table)
    command = f"jaxreg prepare {tmp_path} --layout=bids"
    refuses(lambda: read_cohort(tmp_path), command)
    refuses(lambda: find_cohorts([tmp_path]), command)  # as the training of a segmentation reads it


@pytest.mark.parametrize(
    ("table", "text", "named"),
    [
        ("participants", "", "at least one"),
        ("participants", "participant_id\tsplit\n", "at least one"),
        ("participants", "participant_id\nsub-01\n", "split"),
        ("participants", "subject\tsplit\nsub-01\ttrain\n", "participant_id"),
        ("participants", "participant_id,split\nsub-01,train\n", "participant_id"),
        ("participants", "participant_id\tsplit\nsub-01\n", "split"),
        ("participants", "participant_id\tsplit\nsub-01\ttraining\n", "training"),
        ("participants", "participant_id\tsplit\nsub-01\tTrain\n", "Train"),
        ("participants", "participant_id\tsplit\n../x\ttrain\n", "../x"),
        ("participants", "participant_id\tsplit\n..\ttrain\n", ".."),
        ("participants", "participant_id\tsplit\n.\ttrain\n", "'.'"),
        ("participants", "participant_id\tsplit\n/etc\ttrain\n", "/etc"),
        ("participants", "participant_id\tsplit\na/b\ttrain\n", "a/b"),
        ("participants", "participant_id\tsplit\n\ttrain\n", "participant_id"),
        ("participants", "participant_id\tsplit\nsub-01\ttrain\nsub-01\ttest\n", "sub-01"),
        ("labels", "index\tname\n2.5\twhite\n", "2.5"),
        ("labels", "index\tname\ntwo\twhite\n", "two"),
        ("labels", "index\n2\n", "name"),
    ],
)
def test_a_bad_table_is_refused_by_name(folder, table, text, named):
    (folder / f"{table}.tsv").write_text(text)
    refuses(lambda: read_cohort(folder), str(folder / f"{table}.tsv"), named)


def test_a_table_that_is_not_text_is_refused_by_name(folder):
    (folder / "participants.tsv").write_bytes(b"participant_id\tsplit\n\xff\xfe\ttrain\n")
    refuses(lambda: read_cohort(folder), "participants.tsv")
    (folder / "participants.tsv").unlink()
    (folder / "participants.tsv").mkdir()
    refuses(lambda: read_cohort(folder), "participants.tsv")


def test_a_missing_split_or_domain_is_refused_by_name(folder):
    table = folder / "participants.tsv"
    table.write_text(table.read_text().replace("test", "train"))
    cohort = read_cohort(folder)
    refuses(lambda: cohort.members("test", "T1w"), "participants.tsv", "'test'", "train, val")
    refuses(lambda: cohort.members("val", "FLAIR"), str(folder), "FLAIR", "'val'")


def test_scans_are_in_0_1_with_background_0_and_labels_are_integers(template):
    volumes = Volumes(read_cohort(template), [("sub-01", "T1w"), ("sub-01", "dseg")])
    image, mask, _ = volumes.scan("sub-01", "T1w")
    assert image.shape == (*SHAPE, 1) and image.dtype == np.float32
    assert image.min() == 0 and image.max() == 1
    np.testing.assert_array_equal(mask, brain(0) != 0)
    assert not image[~mask].any()
    np.testing.assert_array_equal(volumes.labels("sub-01"), 3 * (brain(0) > 1.5))
    assert volumes.shape == volumes.native_shape == SHAPE
    assert volumes.spacing_mm == volumes.native_spacing_mm == (2.0, 2.0, 2.0)
    np.testing.assert_allclose(volumes.native_affine, AFFINE)


def test_a_mask_file_decides_where_there_is_one(folder):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2:5, 2:4] = 7
    put(folder, "sub-01", "mask", mask)
    wanted = [("sub-01", "T1w"), ("sub-02", "T1w")]
    volumes = Volumes(read_cohort(folder), wanted)
    image, got, _ = volumes.scan(*wanted[0])
    np.testing.assert_array_equal(got, mask != 0)
    np.testing.assert_allclose(
        image[..., 0], normalize(brain(0), mask != 0), atol=1e-6
    )  # float32 on disk
    np.testing.assert_array_equal(volumes.scan(*wanted[1]).mask, brain(1) != 0)


def test_an_ignore_file_is_read_beside_the_mask_and_counts_in_the_fingerprint(folder):
    wanted = [("sub-01", "T1w"), ("sub-02", "T1w")]
    before = fingerprint(read_cohort(folder), wanted)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[1:3, 2:4, 3:5] = 1
    put(folder, "sub-01", "ignore", lesion)
    volumes = Volumes(read_cohort(folder), wanted)
    got = volumes.scan(*wanted[0]).ignore
    assert got is not None
    np.testing.assert_array_equal(got, lesion != 0)
    assert volumes.scan(*wanted[1]).ignore is None
    assert fingerprint(read_cohort(folder), wanted) != before


def test_an_empty_mask_is_refused_by_name(folder):
    put(folder, "sub-01", "mask", np.zeros(SHAPE, np.uint8))
    refuses(lambda: Volumes(read_cohort(folder), [("sub-01", "T1w")]), "sub-01_mask.nii.gz")


@pytest.mark.parametrize("kind", ["T1w", "T2w", "dseg", "mask"])
@pytest.mark.parametrize("difference", ["shape", "origin", "spacing", "axes"])
@pytest.mark.parametrize("first", [False, True])
def test_a_volume_on_another_grid_is_refused_by_name(folder, kind, difference, first):
    shape, affine = SHAPE, AFFINE.copy()
    if difference == "shape":
        shape = (6, 8, 6)
    elif difference == "origin":
        affine[1, 3] += 0.5
    elif difference == "spacing":
        affine[2, 2] = 2.1
    else:
        affine[0, 1] = 0.2
    array = brain(0, shape)
    put(folder, "sub-01", kind, array if "w" in kind else (array > 0).astype(np.uint8), affine)
    needed = [("sub-01", "T1w"), ("sub-01", "T2w"), ("sub-01", "dseg")]
    needed = needed if first else [("sub-03", "T1w"), *needed]
    named = "sub-01_" if first else f"sub-01_{kind}.nii.gz"
    refuses(lambda: Volumes(read_cohort(folder), needed), named, "grid")


def test_another_orientation_of_the_same_grid_is_the_same_grid(folder):
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = SHAPE[0] - 1
    put(folder, "sub-02", "T1w", brain(1)[::-1], AFFINE @ mirror)
    volumes = Volumes(read_cohort(folder), [("sub-01", "T1w"), ("sub-02", "T1w")])
    np.testing.assert_array_equal(volumes.scan("sub-02", "T1w").mask, brain(1) != 0)


def test_spacing_takes_the_mean_of_the_brain_in_each_voxel_and_nearest_labels(template):
    wanted = [("sub-01", "T1w"), ("sub-01", "dseg")]
    native = Volumes(read_cohort(template), wanted)
    volumes = Volumes(read_cohort(template), wanted, spacing_mm=4.0)
    assert (volumes.shape, volumes.spacing_mm) == ((3, 4, 3), (4.0, 4.0, 4.0))
    assert (volumes.native_shape, volumes.native_spacing_mm) == (SHAPE, (2.0, 2.0, 2.0))
    np.testing.assert_allclose(volumes.native_affine, AFFINE)
    image, mask, _ = volumes.scan(*wanted[0])
    fine = brain(0)[:, :, :4].astype(float)
    total, voxels = (
        a.reshape(3, 2, 4, 2, 2, 2).sum(axis=(1, 3, 5)) for a in (fine, (fine != 0).astype(float))
    )
    inside = voxels > 4  # more than half of the eight
    assert 0 < inside.sum() < inside.size
    means = np.where(inside, total / np.maximum(voxels, 1), 0)
    expected = np.clip(means / np.percentile(means[inside], 99.5), 0, 1)
    np.testing.assert_array_equal(mask[:, :, :2], inside)
    np.testing.assert_allclose(image[:, :, :2, 0], expected, rtol=1e-5)
    assert not image[~mask].any()
    labels, fine_labels = volumes.labels("sub-01"), native.labels("sub-01")
    np.testing.assert_array_equal(labels[:, :, :2], fine_labels[1::2, 1::2, 1::2])
    assert image.shape == (*volumes.shape, 1) and labels.dtype == np.int32


@pytest.mark.parametrize("spacing_mm", [None, 4.0])
def test_without_memory_volumes_are_read_on_demand_with_equal_results(folder, spacing_mm):
    wanted = [("sub-01", "T1w"), ("sub-03", "T2w"), ("sub-01", "dseg")]
    cohort = read_cohort(folder)
    kept = Volumes(cohort, wanted, spacing_mm=spacing_mm, memory_bytes=10**9)
    lean = Volumes(cohort, wanted, spacing_mm=spacing_mm, memory_bytes=0)
    for key in wanted[:2]:
        for a, b in zip(kept.scan(*key), lean.scan(*key), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(kept.labels("sub-01"), lean.labels("sub-01"))
    shutil.rmtree(folder / "sub-01")
    kept.scan("sub-01", "T1w")
    refuses(lambda: lean.scan("sub-01", "T1w"), "sub-01_T1w.nii.gz")


def test_everything_is_checked_when_volumes_are_made_even_without_memory(folder):
    path = folder / "sub-03" / "sub-03_T2w.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    wanted = [("sub-01", "T1w"), ("sub-03", "T2w")]
    refuses(lambda: Volumes(read_cohort(folder), wanted, memory_bytes=0), str(path))


def test_no_volumes_at_all_are_refused(template):
    refuses(lambda: Volumes(read_cohort(template), []), str(template))


@pytest.mark.parametrize(
    ("fixed", "moving", "pairs"),
    [
        ("cab", "bca", ["ab", "bc", "ca"]),
        ("ab", "ab", ["ab", "ba"]),
        ("a", "a", []),
        ("", "ab", []),
        ("ab", "", []),
        ("abd", "bc", ["ab", "bc", "db"]),
        ("bd", "ace", ["bc", "de"]),
        ("z", "ab", ["za"]),
        ("abc", "b", ["ab", "cb"]),
    ],
)
def test_neighbours_are_the_next_in_sorted_order_and_never_oneself(fixed, moving, pairs):
    got = neighbour_pairs(list(fixed), list(moving))
    assert got == [tuple(pair) for pair in pairs]


def test_the_fingerprint_knows_bytes_and_not_places(template, folder):
    files = [("sub-01", "T1w"), ("sub-03", "T2w")]
    wanted = fingerprint(read_cohort(template), files)
    assert fingerprint(read_cohort(folder), files) == wanted
    assert fingerprint(read_cohort(folder), files[:1]) != wanted
    path = folder / "sub-03" / "sub-03_T2w.nii.gz"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert fingerprint(read_cohort(folder), files) != wanted


def test_the_fingerprint_knows_masks_but_not_volumes_that_were_not_used(folder):
    files = [("sub-01", "T1w")]
    cohort = read_cohort(folder)
    before = fingerprint(cohort, files)
    put(folder, "sub-04", "T1w", brain(77))
    assert fingerprint(cohort, files) == before
    put(folder, "sub-01", "mask", (brain(0) > 0).astype(np.uint8))
    assert fingerprint(cohort, files) != before


# --- what cannot be scored or trained

WHOLE = {"a": "train", "b": "train", "c": "val", "d": "val", "e": "test", "f": "test"}


def having(*lacking):
    """Everybody has everything but these "participant kind"."""
    return lambda participant, kind: f"{participant} {kind}" not in lacking


@pytest.mark.parametrize(
    ("changed", "lacking", "said"),
    [
        ({}, (), []),
        ({}, ("a dseg", "b dseg"), []),
        ({}, ("c T1w", "d T2w"), []),  # c moves, d is fixed
        ({}, ("c dseg", "d dseg"), ["val cannot be scored (none of 2 subjects has labels)"]),
        ({}, ("e dseg",), ["test cannot be scored (only f has images and labels"]),
        ({}, ("c T2w", "d T2w"), ["val cannot be scored (no subject with labels has a T2w)"]),
        ({}, ("c T2w", "d dseg"), ["val cannot be scored (no subject with labels has a T2w)"]),
        ({"c": "train", "d": "train"}, (), ["val cannot be scored (no subject)"]),
        ({"e": "train"}, (), ["test cannot be scored (only f has images and labels"]),
        ({"a": "val"}, ("c dseg",), ["val: without labels and not scored: c"]),
    ],
)
def test_what_cannot_be_scored_is_said_with_its_reason(changed, lacking, said):
    got = scoring_gaps(WHOLE | changed, having(*lacking), ("T1w", "T2w"))
    assert len(got) == len(said)
    for line, wanted in zip(got, said, strict=True):
        assert f"split {wanted}" in line


def test_without_structures_nothing_can_be_scored():
    got = scoring_gaps(WHOLE, having(), ("T1w", "T2w"), structures=False)
    assert len(got) == 2 and all("no structures in labels.tsv" in line for line in got)


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        ((), None),
        (("a T2w",), "b has a T2w"),
        (("a T1w", "b T2w"), None),  # b is fixed, a moves
        (("a T2w", "b T2w"), "no subject in split train has a T2w"),
    ],
)
def test_a_train_split_without_a_pair_is_known(lacking, named):
    got = training_gap(WHOLE, having(*lacking), ("T1w", "T2w"))
    assert got is None if named is None else named in str(got)


def test_each_unusual_file_is_remarked_on_once(folder):
    path = folder / "sub-01" / "sub-01_dseg.nii.gz"
    labels = images.read(path)
    images.write(path, Volume(labels.array + np.float32(0.004), labels.affine))
    said = []
    needed = [("sub-01", "T1w"), ("sub-01", "dseg"), ("sub-02", "T1w")]
    volumes = Volumes(read_cohort(folder), needed, remark=said.append, memory_bytes=0)
    volumes.labels("sub-01")  # read again, for there is no memory to keep it
    assert len(said) == 1 and str(path) in said[0] and "rounded" in said[0]
