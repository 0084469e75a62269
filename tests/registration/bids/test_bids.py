"""`jaxreg bids`: a data set of phantoms in, derivatives out, which the BIDS validator accepts.

Oracles: the motion between T1w and T2w is known, SimpleITK reads the transforms, `jaxreg apply`
repeats the moved image, and the validator says what BIDS is.
"""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from bids_data import add_image, describe, validation_errors
from nibabel.nifti1 import Nifti1Image
from registration_data import motion, write_subject

from jaxreg.cli import main
from jaxreg.configuration.bids import BidsSelection
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.prepare import layouts
from jaxreg.io.images import read_labels
from jaxreg.io.itk_geometry import LPS_MATRIX
from jaxreg.io.tables import read_table
from jaxreg.registration.bids.derivatives import Job, publish
from jaxreg.registration.bids.pairs import BidsPair
from jaxreg.registration.bids.run import register_dataset

MOTION = motion(7, (4, -6, 5))
XFM = "sub-01/ses-a/anat/sub-01_ses-a_from-{}_to-{}_mode-image_xfm{}"
MOVED = "sub-01/ses-a/anat/sub-01_ses-a_space-T1w_desc-rigid_T2w"
WORK = "work/from-T2w_to-T1w"


def bids(root, out, *flags):
    return main(["bids", str(root), f"--out={out}", "--extract=never", *map(str, flags)])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three subjects: one pair that moved, one of several images, one whose T2w is damaged."""
    root = tmp_path_factory.mktemp("bids") / "raw"
    describe(root)
    add_image(root, "sub-01_ses-a_T1w")
    add_image(root, "sub-01_ses-a_T2w", axes="las", spacing_mm=(8, 7, 10), motion=MOTION)
    add_image(root, "sub-01_ses-b_T1w")
    add_image(root, "sub-02_run-01_T1w", 1)
    add_image(root, "sub-02_run-02_T1w", 1)
    add_image(root, "sub-02_acq-space_T2w", 1, axes="oblique")
    add_image(root, "sub-03_ses-a_T1w", 2)
    damaged = add_image(root, "sub-03_ses-a_T2w", 2)
    assert validation_errors(root) == []
    damaged.write_bytes(damaged.read_bytes()[:3000])
    return root


@pytest.fixture(scope="module")
def out(root):
    """The derivatives, inside the data set."""
    out = root / "derivatives" / "jaxreg"
    assert bids(root, out) == 1
    return out


def files(out):
    """The published files, relative to `out`."""
    paths = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != "work"}


def sidecar(out, name):
    return json.loads((out / f"{name}.json").read_text(encoding="utf-8"))


def results(out, work=WORK):
    return {r["name"]: r for r in read_table(out / work / "results.tsv", ("name", "reason"))}


def test_the_validator_accepts_the_derivatives(out):
    assert validation_errors(out) == []


def test_the_validator_sees_a_wrong_name(out, tmp_path):
    for name in ("dataset_description.json", "README.md", ".bidsignore"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    wrong = tmp_path / "sub-01" / "anat" / "sub-01_moved.nii.gz"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes((out / f"{MOVED}.nii.gz").read_bytes())
    assert any("sub-01_moved" in line for line in validation_errors(tmp_path))


def test_each_file_has_its_bids_name(out):
    expected = {"dataset_description.json", "README.md", ".bidsignore"}
    for name, below, entities in (
        ("sub-01_ses-a", "sub-01/ses-a", ""),
        ("sub-02", "sub-02", "_acq-space"),
    ):
        anat = f"{below}/anat/{name}"
        for ways in (("T2w", "T1w"), ("T1w", "T2w")):
            xfm = "{}_from-{}_to-{}_mode-image_xfm".format(anat, *ways)
            expected |= {f"{xfm}.txt", f"{xfm}.json"}
        moved = f"{anat}{entities}_space-T1w_desc-rigid_T2w"
        expected |= {f"{moved}.nii.gz", f"{moved}.json", f"{name}_from-T2w_to-T1w.html"}
    assert files(out) == expected


def test_who_lacks_an_image_or_fails_stops_nobody_and_is_listed(out):
    left_out = read_table(out / WORK / "left_out.tsv", ("name", "reason"))
    assert left_out == [{"name": "sub-01_ses-b", "reason": "no T2w"}]
    (choice,) = read_table(out / WORK / "choices.tsv", ("participant_id",))
    assert choice == {
        "participant_id": "sub-02",
        "of": "T1w",
        "taken": "sub-02_run-01_T1w.nii.gz",
        "not_taken": "sub-02_run-02_T1w.nii.gz",
        "rule": "the lowest run comes first",
    }
    found = results(out)
    assert {name: row["status"] for name, row in found.items()} == {
        "sub-01_ses-a": "done",
        "sub-02": "done",
        "sub-03_ses-a": "failed",
    }
    assert "sub-03_ses-a_T2w.nii.gz" in found["sub-03_ses-a"]["reason"]


def test_the_transform_is_the_motion_between_the_two_images(out):
    forth, back = (
        sitk.ReadTransform(str(out / XFM.format(*ways, ".txt")))
        for ways in (("T2w", "T1w"), ("T1w", "T2w"))
    )
    points = np.array([[0, 0, 0], [40, -30, 20], [-35, 25, 30.0]])
    moved = np.array([forth.TransformPoint(p) for p in (points * [-1, -1, 1]).tolist()])
    expected = (MOTION @ np.c_[points, np.ones(3)].T).T[:, :3]
    # Mutual information of two phantoms of 8 mm finds a pose to about a quarter of a voxel.
    assert np.abs(moved * [-1, -1, 1] - expected).max() < 2.5
    again = np.array([back.TransformPoint(p) for p in moved.tolist()])
    np.testing.assert_allclose(again, points @ LPS_MATRIX[:3, :3], atol=1e-6)


def test_apply_repeats_the_moved_image(root, out, tmp_path):
    anat = root / "sub-01" / "ses-a" / "anat"
    t1w, t2w = (anat / f"sub-01_ses-a_{suffix}.nii.gz" for suffix in ("T1w", "T2w"))
    argv = ["apply", str(out / XFM.format("T2w", "T1w", ".txt")), f"--image={t2w}"]
    assert main([*argv, f"--reference={t1w}", f"--out={tmp_path / 'again.nii.gz'}"]) == 0
    again, moved, fixed = (
        Nifti1Image.from_filename(path)
        for path in (tmp_path / "again.nii.gz", out / f"{MOVED}.nii.gz", t1w)
    )
    apart = np.abs(again.get_fdata() - moved.get_fdata())
    # The run's own map is rounded to 1/128 mm, and the text file's is not.
    assert apart.max() < 0.002 * moved.get_fdata().max()
    assert moved.shape == fixed.shape
    np.testing.assert_allclose(np.asarray(moved.affine), np.asarray(fixed.affine))


def test_sidecars_name_sources_that_are_there_and_the_numbers(root, out):
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    moved, xfm = sidecar(out, MOVED), sidecar(out, XFM.format("T2w", "T1w", ""))
    for uri in (*moved["Sources"], moved["SpatialReference"], *xfm["Sources"]):
        _, dataset, path = uri.split(":")
        assert (out / links.get(dataset, "") / path).is_file(), uri
    assert moved["SpatialReference"].endswith("sub-01_ses-a_T1w.nii.gz")
    assert moved["GeneratedBy"][0]["Name"] == "jaxreg" and moved["SkullStripped"] is True
    row = results(out)["sub-01_ses-a"]
    assert xfm["Similarity"] == pytest.approx(float(row["similarity"]), rel=1e-5)
    assert xfm["Transform"] == "rigid" and xfm["Verdict"] in ("green", "amber", "red")


def test_the_same_command_continues_and_restores_what_was_deleted(root, out):
    before = {p: p.stat().st_mtime_ns for p in (out / WORK).glob("*/provenance.json")}
    moved = out / f"{MOVED}.nii.gz"
    content = moved.read_bytes()
    moved.unlink()
    assert bids(root, out) == 1
    assert before == {p: p.stat().st_mtime_ns for p in (out / WORK).glob("*/provenance.json")}
    assert moved.read_bytes() == content and len(before) == 2


def test_other_settings_are_refused_and_replaced_on_request(root, out, tmp_path, capsys):
    other, flags = tmp_path / "other", ("--participant-label", "sub-01", "--session", "a")
    seen = []

    def say(line):
        if line.startswith("1/1"):  # the pair, before the tables and the page
            seen.append(files(other))

    selection = BidsSelection(participant_label=("sub-01",), session=("a",))
    rigid = RegisterConfig(transform="rigid", extract="never")
    register_dataset(root, other, selection, rigid, say=say)
    assert f"{MOVED}.nii.gz" in seen[0]  # published as soon as it is finished
    assert bids(root, other, "--participant-label", "02") == 0
    done = {name: row["status"] for name, row in results(other).items()}
    assert done == {"sub-01_ses-a": "done", "sub-02": "done"}
    description = json.loads((other / "dataset_description.json").read_text())
    assert description["DatasetLinks"]["raw"] == root.as_uri()
    assert bids(root, other, *flags, "--transform=affine") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert bids(root, other, *flags, "--transform=affine", "--overwrite") == 0
    there = files(other)
    assert MOVED.replace("rigid", "affine") + ".nii.gz" in there
    assert not {f"{MOVED}.nii.gz", f"{MOVED}.json"} & there
    assert XFM.format("T2w", "T1w", ".json") in there and validation_errors(other) == []


def test_every_subject_to_a_template_and_its_labels_back(root, tmp_path):
    files_of = write_subject(tmp_path, 0, "T1w", axes="psl", spacing_mm=(8, 9, 8))
    template = files_of["image"].rename(tmp_path / "tpl-Phantom_T1w.nii.gz")
    labels = files_of["labels"].rename(tmp_path / "labels.nii.gz")
    codes = np.unique(read_labels(labels).array)[1:]
    rows = "".join(f"{code}\tstructure {code}\n" for code in codes)
    (tmp_path / "labels.tsv").write_text(f"index\tname\n{rows}")
    out, direct = tmp_path / "out", ("--optimize-only", "--steps=2", "--spacing=8", "--init=com")
    flags = (f"--template={template}", f"--template-labels={labels}", *direct, "--at-once=1")
    assert bids(root, out, "--participant-label", "02", *flags) == 0
    anat = "sub-02/anat/sub-02"
    moved, dseg = (
        f"{anat}_run-01_{rest}"
        for rest in ("space-Phantom_desc-deformable_T1w", "seg-Phantom_dseg")
    )
    forth, back = (
        f"{anat}_from-{ways}_mode-image_xfm" for ways in ("T1w_to-Phantom", "Phantom_to-T1w")
    )
    expected = {f"{name}{e}" for name in (moved, dseg, forth, back) for e in (".nii.gz", ".json")}
    assert expected | {"seg-Phantom_dseg.tsv"} < files(out)
    assert validation_errors(out) == []
    assert sidecar(out, moved)["SpatialReference"] == template.as_uri()

    t1w = root / "sub-02" / "anat" / "sub-02_run-01_T1w.nii.gz"
    image = sitk.ReadImage(str(t1w), sitk.sitkFloat64)
    pulled = sitk.Resample(image, sitk.ReadImage(str(template)), field_in(out / f"{forth}.nii.gz"))
    apart = np.abs(voxels(pulled) - voxels(sitk.ReadImage(str(out / f"{moved}.nii.gz"))))
    assert np.percentile(apart, 99) < 1  # of 1000; where the field of view ends, ITK is strict

    own = sitk.ReadImage(str(out / f"{dseg}.nii.gz"))
    nearest = sitk.Resample(
        sitk.ReadImage(str(labels)),
        image,
        field_in(out / f"{back}.nii.gz"),
        sitk.sitkNearestNeighbor,
    )
    same = voxels(own)[voxels(nearest) > 0] == voxels(nearest)[voxels(nearest) > 0]
    assert same.mean() > 0.8  # jaxreg's borders are smoother than the nearest neighbour's
    volumes = sidecar(out, dseg)["VolumesML"]
    millilitres = {code: 0.512 * (voxels(own) == code).sum() for code in codes}
    assert volumes == pytest.approx({f"structure-{c}": ml for c, ml in millilitres.items()})


def field_in(path):
    """A displacement field as SimpleITK reads it."""
    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    return sitk.DisplacementFieldTransform(image)


def voxels(image):
    return sitk.GetArrayFromImage(image).astype(float)


def test_masks_that_were_found_are_published_as_brain_masks(root, out, tmp_path):
    """The brains of whole heads are found by networks, so the files of such a run are put there."""
    pair = BidsPair(
        "sub-02",
        "",
        *(root / "sub-02/anat" / f"sub-02_{n}.nii.gz" for n in ("run-01_T1w", "acq-space_T2w")),
    )
    folder = tmp_path / "sub-02"
    folder.mkdir()
    for path in (out / WORK / "sub-02").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for role, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        loaded = Nifti1Image.from_filename(image)
        mask = (loaded.get_fdata() > 50).astype(np.uint8)
        Nifti1Image(mask, np.asarray(loaded.affine)).to_filename(folder / f"{role}_mask.nii.gz")
    derived = tmp_path / "derived"
    derived.mkdir()
    for name in ("dataset_description.json", ".bidsignore", "README.md"):
        (derived / name).write_bytes((out / name).read_bytes())
    job = Job(root, derived, "T2w", "T1w", None)
    assert publish(job, pair, folder) and not publish(job, pair, folder)
    t1w, t2w = (
        "sub-02/anat/sub-02_run-01_desc-brain_mask",
        "sub-02/anat/sub-02_acq-space_space-T2w_desc-brain_mask",
    )
    assert {f"{t1w}.nii.gz", f"{t2w}.nii.gz"} < files(derived)
    assert sidecar(derived, t2w)["Type"] == "Brain"
    assert sidecar(derived, t2w)["SpatialReference"].endswith("acq-space_T2w.nii.gz")
    moved = "sub-02/anat/sub-02_acq-space_space-T1w_desc-rigid_T2w"
    assert sidecar(derived, moved)["SkullStripped"] is False
    assert validation_errors(derived) == []

    again = tmp_path / "again"
    (again / "sub-02" / "anat").mkdir(parents=True)
    (again / "sub-02" / "anat" / pair.fixed.name).touch()
    (again / "derivatives").mkdir()
    derived.rename(again / "derivatives" / "jaxreg")
    (subject,) = layouts.find("bids", again).subjects  # what `jaxreg prepare` takes
    assert subject.mask == again / "derivatives" / "jaxreg" / f"{t1w}.nii.gz"


def test_warps_of_larger_voxels_are_published_on_demand(root, tmp_path, capsys):
    template = write_subject(tmp_path, 0, "T1w", spacing_mm=(8, 8, 8))["image"]
    template = template.rename(tmp_path / "tpl-Phantom_T1w.nii.gz")
    direct = ("--optimize-only", "--steps=2", "--spacing=8", "--init=com", "--warp-spacing=10")
    out = tmp_path / "out"
    assert bids(root, out, "--participant-label", "02", f"--template={template}", *direct) == 0
    anat = "sub-02/anat/sub-02_from-T1w_to-Phantom_mode-image_xfm.nii.gz"
    warp = sitk.ReadImage(str(out / anat), sitk.sitkVectorFloat64)
    assert warp.GetSpacing() == pytest.approx((10, 10, 10))
    capsys.readouterr()
    assert bids(root, tmp_path / "rigid", "--warp-spacing=2") == 2
    assert "--warp-spacing: not read by a rigid transform" in capsys.readouterr().err
    assert bids(root, tmp_path / "rigid", "--at-once=0") == 2
    assert "--at-once: expected at least 1" in capsys.readouterr().err
