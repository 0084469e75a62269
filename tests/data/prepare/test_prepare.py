"""Cohorts from scans: layouts, geometry, labels, splits, resuming, failures, refusals.

Oracles: images that are a linear function of the millimetres of their own file, which linear
interpolation and averaging keep exactly; ellipsoids with known moments; blocks counted by hand.
The aligner is a known matrix, but for one test with the real one.
"""

import dataclasses
import gzip
import json
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from jaxreg import cli
from jaxreg.configuration.preparation import PrepareConfig, parse_split
from jaxreg.data.cohort import read_cohort
from jaxreg.data.prepare import layouts, template
from jaxreg.data.prepare.freesurfer_labels import STRUCTURES, merge_parcels
from jaxreg.data.prepare.prepare import assign_splits, prepare, structures
from jaxreg.data.prepare.source import Files
from jaxreg.data.prepare.subject import align_head
from jaxreg.data.prepare.template import Head
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.io import images
from jaxreg.io.atomic import claimed

RADII_MM = np.array([30.0, 38.0, 33.0])
CENTRE_MM = np.array([6.0, -11.0, 17.0])
SLOPE = np.array([3.8, -2.5, 1.7])
MARK_MM = CENTRE_MM + [-12.0, 9.0, 8.0]
SHAPE = (22, 24, 20)


def matrix(degrees, shift_mm=(0, 0, 0), scales=(1, 1, 1)):
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(scales)
    out[:3, 3] = shift_mm
    return out


AFFINE = matrix((4, -7, 5), (1.5, -2, 1), (1.05, 0.95, 1.1))
RIGID = matrix((-3, 2, 6), (3, -1, 2))


def align(fixed, moving, *, mode, fixed_mask=None, moving_mask=None):
    """What the aligner would find, were the subjects and their images in these known places."""
    return {"affine": AFFINE, "rigid": RIGID}[mode].copy()


def move(to_image, points):
    return points @ to_image[:3, :3].T + to_image[:3, 3]


def millimetres(shape, affine):
    """RAS mm of each voxel centre, [x, y, z, 3]."""
    return move(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))


def inside(points, scale=1.0):
    return (((points - CENTRE_MM) / (scale * RADII_MM)) ** 2).sum(axis=-1) < 1


def gradient(points):
    return 200 + (points - CENTRE_MM) @ SLOPE


def scanner(signs=(-1, 1, 1), degrees=(9, -6, 12), spacing_mm=(4.0, 4.5, 5.5)):
    """An oblique, anisotropic affine (LAS by default) with the ellipsoid in its field of view."""
    affine = matrix(degrees, scales=np.multiply(signs, spacing_mm))
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    return affine


def save(path, array, affine, dtype: Any = np.float32):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(Nifti1Image(array.astype(dtype), affine), path)  # pyright: ignore[reportPrivateImportUsage]


def scan(path, *, brain=True, seed=None, affine=None):
    """An image whose values are `gradient` at the file's own millimetres, 0 outside the brain."""
    affine = scanner() if affine is None else affine
    at = millimetres(SHAPE, affine)
    values = gradient(at)
    if seed is not None:
        values = values * (1 + seed / 10)  # nobody is like the other
    values = np.where(inside(at), values, 0 if brain else 300)
    values[:2] = 0  # air: the 300 beside it is tissue, and no zero that was shifted
    save(path, values, affine)


def label_map(path, *, mark=17, cortex=(1003, 2030), affine=None):
    """White matter 2, a ball of `mark` (16 mm across), and two parcels in a shell."""
    affine = scanner((1, -1, 1), (3, 8, -5), (3.0, 4.0, 3.5)) if affine is None else affine
    shape = (26, 24, 28)
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ (np.array(shape) - 1) / 2
    at = millimetres(shape, affine)
    shell = np.where(at[..., 0] < CENTRE_MM[0], cortex[0], cortex[1])
    labels = np.where(inside(at, 0.8), 2, np.where(inside(at), shell, 0))
    labels[((at - MARK_MM) ** 2).sum(axis=-1) < 8**2] = mark
    save(path, labels, affine, np.int16)


def mask_file(path):
    affine = scanner((1, 1, 1), (0, 0, 0), (3.0, 3.0, 3.0))
    shape = (36, 38, 36)
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ (np.array(shape) - 1) / 2
    save(path, inside(millimetres(shape, affine)), affine, np.uint8)


def hcp(root, subjects=4):
    for n in range(subjects):
        folder = root / str(100307 + n) / "T1w"
        scan(folder / "T1w_acpc_dc_restore_brain.nii.gz", seed=n)
        scan(folder / "T2w_acpc_dc_restore_brain.nii.gz", seed=n + 50)
        mask_file(folder / "brainmask_fs.nii.gz")
        label_map(folder / "aparc+aseg.nii.gz")
        scan(folder.parent / "MNINonLinear" / "T1w_restore_brain.nii.gz")
    return root


def bids(root, subjects=4):
    for n in range(subjects):
        name = f"sub-{n + 1:02d}"
        scan(root / name / "anat" / f"{name}_T1w.nii.gz", brain=False, seed=n)
        scan(root / name / "anat" / f"{name}_T2w.nii.gz", brain=False, seed=n + 50)
        derived = root / "derivatives" / "fmriprep" / name / "anat"
        mask_file(derived / f"{name}_desc-brain_mask.nii.gz")
        label_map(derived / f"{name}_desc-aparcaseg_dseg.nii.gz")
        for kind in ("desc-brain_mask", "desc-aparcaseg_dseg"):
            scan(derived / f"{name}_space-MNI152NLin2009cAsym_{kind}.nii.gz")
    return root


def ixi(root, subjects=4):
    for n in range(subjects):
        for ending in ("T1", "T2"):
            scan(root / f"IXI-{ending}" / f"IXI{n + 12:03d}-Guys-0{n}28-{ending}.nii.gz", seed=n)
    return root


def table(root, subjects=4):
    rows = ["participant_id\tage\tT1w\tT2w\tmask\tdseg"]
    for n in range(subjects):
        scan(root / "scans" / f"t1_{n}.nii.gz", seed=n)
        scan(root / "scans" / f"t2_{n}.nii.gz", seed=n + 50)
        label_map(root / "scans" / f"labels_{n}.nii.gz")
        rows.append(
            f"p{n}\t30\tscans/t1_{n}.nii.gz\tscans/t2_{n}.nii.gz\tn/a\tscans/labels_{n}.nii.gz"
        )
    path = root / "subjects.tsv"
    path.write_text("\n".join(rows) + "\n")
    return path


BUILDERS = {"hcp": hcp, "bids": bids, "ixi": ixi, "table": table}


@pytest.fixture(scope="session", params=BUILDERS)
def made(request, tmp_path_factory):
    """(layout, its cohort, the summary)."""
    root = tmp_path_factory.mktemp(request.param)
    source = BUILDERS[request.param](root / "source")
    config = PrepareConfig(
        layout=request.param, source=source, out=root / "cohort", spacing=6.0, jobs=2
    )
    return request.param, config, prepare(config, align)


def config_of(tmp_path, **changes):
    """A table of four subjects, to be damaged."""
    path = tmp_path / "source" / "subjects.tsv"
    if not path.is_file():
        table(tmp_path / "source")
    return PrepareConfig(
        layout="table", source=path, out=tmp_path / "cohort", **{"spacing": 8.0, **changes}
    )


def refuses(function, *names):
    with pytest.raises(InputError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message and all(name in message for name in names), message


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def record_of(folder, name):
    return json.loads((folder / name / f"{name}_prepare.json").read_text())


# --- the whole way, every layout


def test_a_cohort_of_every_layout_is_read_by_the_pipeline(made):
    layout, config, summary = made
    cohort = read_cohort(config.out)
    names = {"hcp": "sub-100307", "bids": "sub-01", "ixi": "sub-IXI012", "table": "p0"}
    assert names[layout] in cohort.participants and len(cohort.participants) == 4
    assert sorted(cohort.participants.values()) == ["test", "train", "train", "val"]
    assert summary.subjects == {"train": 2, "val": 1, "test": 1} and not summary.failed
    needed = [(p, kind) for p in cohort.participants for kind in ("T1w", "T2w")]
    volumes = Volumes(cohort, needed)
    np.testing.assert_allclose(volumes.native_spacing_mm, 6.0)
    assert all(n % 8 == 0 for n in volumes.native_shape)
    if layout in ("hcp", "bids"):
        assert cohort.structures == {n: STRUCTURES[n] for n in (2, 3, 17, 42)}
    else:
        assert cohort.structures == (
            {} if layout == "ixi" else {n: f"label-{n}" for n in (2, 17, 1003, 2030)}
        )


def test_every_image_lies_where_its_record_says(made):
    layout, config, _ = made
    for name in read_cohort(config.out).participants:
        for domain, image in record_of(config.out, name)["images"].items():
            stored = images.read(config.out / name / f"{name}_{domain}.nii.gz")
            assert stored.array.dtype == np.uint8
            at = move(
                np.array(image["cohort_to_file_ras_mm"]),
                millimetres(stored.array.shape, stored.affine),
            )
            brain = at
            if domain == "T2w" and layout == "bids":  # the mask is the T1w's
                brain = move(np.linalg.inv(RIGID), at)
            got = stored.array != 0
            # half a voxel of the file (up to 5.5 mm) and of the cohort (6 mm) at the rim
            assert got[inside(brain, 0.85)].all() and not got[~inside(brain, 1.2)].any()
            deep = inside(brain, 0.55) & inside(at, 0.55)  # 13 mm from what is outside
            wanted, values = gradient(at)[deep], stored.array[deep].astype(float)
            scaled = wanted * (wanted @ values) / (wanted @ wanted)
            # half a grey value by rounding; a shift of 0.5 mm along the slope would be 1.3
            assert np.ptp(scaled) > 60 and np.abs(values - scaled).max() < 0.7
            assert abs(np.percentile(stored.array[got], 99.5) - 200) <= 1


def test_the_matrices_are_what_the_aligner_said(made):
    layout, config, _ = made
    template = images.read(config.out / "template.nii.gz")
    middle = move(template.affine, np.argwhere(template.array).mean(axis=0))
    for name in read_cohort(config.out).participants:
        records = record_of(config.out, name)["images"]
        first = np.array(records["T1w"]["cohort_to_file_ras_mm"])
        np.testing.assert_allclose(first[:3, :3], AFFINE[:3, :3], atol=1e-12)
        # centre on centre before the aligner starts; both are means over voxels of 4 mm and more
        np.testing.assert_allclose(move(first @ np.linalg.inv(AFFINE), middle), CENTRE_MM, atol=0.5)
        other = np.eye(4) if layout == "hcp" else RIGID
        second = np.array(records["T2w"]["cohort_to_file_ras_mm"])
        np.testing.assert_allclose(second, other @ first, atol=1e-9)


def test_labels_lie_on_their_mark_and_none_is_invented(made):
    layout, config, _ = made
    if layout == "ixi":
        return
    for name in read_cohort(config.out).participants:
        labels = images.read_labels(config.out / name / f"{name}_dseg.nii.gz")
        to_file = np.array(record_of(config.out, name)["images"]["T1w"]["cohort_to_file_ras_mm"])
        at = move(to_file, millimetres(labels.array.shape, labels.affine))
        cortex = (1003, 2030) if layout == "table" else (3, 42)
        assert set(np.unique(labels.array)) == {0, 2, 17, *cortex}
        # a ball of about ten voxels of 6 mm
        np.testing.assert_allclose(at[labels.array == 17].mean(axis=0), MARK_MM, atol=2.0)
        assert (at[labels.array == cortex[0]][:, 0] < CENTRE_MM[0] + 4).all()
        assert (at[labels.array == cortex[1]][:, 0] > CENTRE_MM[0] - 4).all()


def test_whole_heads_and_missing_masks_are_said(made, capsys):
    layout, _, summary = made
    print(summary)
    out = capsys.readouterr().out
    assert ("4 of 4 subjects have no brain mask" in out) == (layout in ("ixi", "table"))
    assert "2 train, 1 val, 1 test" in out and "0 failed" in out


@pytest.mark.slow
def test_the_real_aligner_brings_a_moved_brain_back(tmp_path):
    affine = pytest.importorskip("jaxreg.registration.linear.affine")
    from jaxreg.data.synthetic.phantom import write_phantom_cohort

    phantom = write_phantom_cohort(
        tmp_path / "phantom", shape=(32, 40, 32), spacing_mm=5.0, subjects={"train": 1}
    )
    source = phantom / "sub-01"
    moved = matrix((8, -10, 12), (70, -40, 25))  # as from another scanner
    for kind in ("T1w", "dseg"):
        image = images.read(source / f"sub-01_{kind}.nii.gz")
        images.write(tmp_path / f"{kind}.nii.gz", Volume(image.array, moved @ image.affine))
    (tmp_path / "subjects.tsv").write_text(
        "participant_id\tT1w\tdseg\none\tT1w.nii.gz\tdseg.nii.gz\n"
    )
    template = source / "sub-01_T1w.nii.gz"
    config = PrepareConfig(
        layout="table",
        source=tmp_path / "subjects.tsv",
        out=tmp_path / "cohort",
        spacing=5.0,
        template=template,
    )
    prepare(config, affine.register_affine)
    got = np.array(record_of(config.out, "one")["images"]["T1w"]["cohort_to_file_ras_mm"])
    labels = images.read(source / "sub-01_dseg.nii.gz")
    points = move(labels.affine, np.argwhere(labels.array))
    error = np.linalg.norm(move(got, points) - move(moved, points), axis=-1)
    assert error.mean() < 1.5  # a third of a voxel: the template is a resampled copy


def test_choices_are_printed_and_kept(tmp_path):
    root = bids(tmp_path / "source")
    scan(root / "sub-02" / "anat" / "sub-02_ce-gd_T1w.nii.gz", seed=9)
    config = PrepareConfig(layout="bids", source=root, out=tmp_path / "cohort", spacing=8.0, jobs=2)
    summary = prepare(config, align)
    line = (
        "sub-02: T1w: sub-02_T1w.nii.gz, not sub-02_ce-gd_T1w.nii.gz; an image without ce- comes "
        "first"
    )
    assert line in str(summary).splitlines()
    rows = (config.out / "choices.tsv").read_text().splitlines()
    assert rows[1].split("\t")[:4] == [
        "sub-02", "T1w", "sub-02_T1w.nii.gz", "sub-02_ce-gd_T1w.nii.gz",
    ]  # fmt: skip


def test_what_readers_remark_on_is_printed_and_kept(tmp_path):
    config = config_of(tmp_path)
    scans = tmp_path / "source" / "scans"
    path = scans / "t1_0.nii.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    labels: Any = nib.load(scans / "labels_1.nii.gz")  # pyright: ignore[reportPrivateImportUsage]
    save(scans / "labels_1.nii.gz", labels.get_fdata() + 0.004, labels.affine)
    image: Any = nib.load(scans / "t2_2.nii.gz")  # pyright: ignore[reportPrivateImportUsage]
    other = image.affine.copy()
    other[:3, 3] += 4
    image.set_qform(other, code=1)
    image.set_sform(image.affine, code=1)
    image.to_filename(tmp_path / "t2_2.nii.gz")
    shutil.move(tmp_path / "t2_2.nii.gz", scans / "t2_2.nii.gz")
    lines = prepare(config, align).lines()
    for name, wanted in (
        ("p0", f"{path}: not compressed, other than its name says; the content counts"),
        ("p1", "labels_1.nii.gz: labels such as "),
        ("p2", f"warning: {scans / 't2_2.nii.gz'}: sform and qform lie up to 6.9 mm"),
    ):
        assert any(wanted in line for line in lines), lines
        assert any(wanted in line for line in record_of(config.out, name)["remarks"])
    assert not any(record_of(config.out, "p3")["remarks"])


def test_splits_that_cannot_be_scored_are_said_at_once_and_at_the_end(tmp_path):
    config = config_of(tmp_path)
    splits = assign_splits(layouts.find("table", config.source).subjects, None, seed=0)
    said = []

    def failing(*images, **settings):
        raise InputError("the work begins")

    refuses(lambda: prepare(config, failing, say=said.append), "template")
    assert ["split val" in said[0], "split test" in said[1]] == [True, True] and len(said) == 2
    (val,) = [name for name, split in splits.items() if split == "val"]
    assert f"only {val} has images and labels" in said[0] and said[0].startswith("warning: ")
    lines = prepare(config, align).lines()
    assert said[0] in lines and said[1] in lines


def test_a_cohort_without_pairs_to_train_on_is_said(tmp_path):
    table(tmp_path / "source", subjects=2)
    config = config_of(tmp_path, split="1/1/0")
    lines = prepare(config, align).lines()
    assert any("`train --stage=reg` will refuse this cohort" in line for line in lines)


def test_a_folder_that_another_process_writes_or_that_cannot_be_is_refused(tmp_path):
    config = config_of(tmp_path)
    with claimed(config.out):
        refuses(lambda: prepare(config, align), str(config.out), "another run")
    below = dataclasses.replace(config, out=config.source / "cohort")
    refuses(lambda: prepare(below, align), "is a file")


def test_a_label_map_in_place_of_an_image_fails(tmp_path):
    config = config_of(tmp_path)
    scans = tmp_path / "source" / "scans"
    shutil.copy(scans / "labels_0.nii.gz", scans / "t2_0.nii.gz")
    summary = prepare(config, align)
    assert "looks like a label map" in summary.failed["p0"]


# --- resuming, failures, determinism


def test_the_same_bytes_whatever_the_number_of_jobs(tmp_path):
    one, more = config_of(tmp_path, jobs=1), config_of(tmp_path, jobs=3)
    more = dataclasses.replace(more, out=tmp_path / "again")
    prepare(one, align)
    prepare(more, align)
    assert contents(one.out) == contents(more.out)
    assert not [name for name in contents(one.out) if name.split("/")[-1].startswith(".")]


def test_a_half_written_person_is_done_again_and_nobody_else(tmp_path):
    config = config_of(tmp_path, jobs=1)
    prepare(config, align)
    before = contents(config.out)
    (config.out / "p2").rename(config.out / ".p2")
    (config.out / ".p2" / "p2_T1w.nii.gz").write_bytes(b"half")
    (config.out / "participants.tsv").unlink()
    refuses(lambda: read_cohort(config.out), "participants.tsv")
    modes = []

    def counting(fixed, moving, *, mode, **masks):
        modes.append(mode)
        return align(fixed, moving, mode=mode, **masks)

    prepare(config, counting)
    assert modes == ["affine", "rigid"]
    assert contents(config.out) == before


def test_an_interrupted_template_is_made_again(tmp_path):
    config = config_of(tmp_path)

    def interrupted(*images, **settings):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config, interrupted)
    assert set(contents(config.out)) == {"prepare.json"}
    assert prepare(config, align).subjects == {"train": 2, "val": 1, "test": 1}


def damage(path):
    path.write_bytes(path.read_bytes()[:-200])


def test_who_fails_is_listed_and_does_not_stop_the_others(tmp_path, capsys):
    table(tmp_path / "source", subjects=6)
    config = config_of(tmp_path, split="4/1/1")
    splits = assign_splits(
        layouts.find("table", config.source).subjects, config.split, seed=config.seed
    )
    first, second, *_ = sorted(name for name, split in splits.items() if split == "train")
    bad = tmp_path / "source" / "scans" / f"t1_{first[1]}.nii.gz"
    whole = bad.read_bytes()
    damage(bad)
    label_map(tmp_path / "source" / "scans" / f"labels_{second[1]}.nii.gz", mark=-4)
    summary = prepare(config, align)
    assert set(summary.failed) == {first, second} and summary.subjects["train"] == 2
    assert str(bad) in summary.failed[first] and "-4" in summary.failed[second]
    assert set(read_cohort(config.out).participants) == set(splits) - {first, second}
    print(summary)
    assert f"{first}: failed, {bad}" in capsys.readouterr().out
    assert (config.out / "failures.tsv").read_text().count("\n") == 3
    bad.write_bytes(whole)
    label_map(tmp_path / "source" / "scans" / f"labels_{second[1]}.nii.gz")
    assert not prepare(config, align).failed
    assert not (config.out / "failures.tsv").exists()
    assert len(read_cohort(config.out).participants) == 6


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            RuntimeError("ITK ERROR: samples map outside\nmoving image"),
            "ITK ERROR: samples map outside",
        ),
        (np.full((4, 4), np.nan), "alignment"),
        (np.diag([0.0, 1, 1, 1]), "alignment"),
    ],
)
def test_a_failing_aligner_is_that_persons_failure(tmp_path, answer, reason):
    config = config_of(tmp_path)
    prepare(config, align)
    splits = read_cohort(config.out).participants
    name = min(name for name, split in splits.items() if split == "train")
    shutil.rmtree(config.out / name)

    def failing(fixed, moving, *, mode, **masks):
        if isinstance(answer, Exception):
            raise answer
        return answer

    summary = prepare(config, failing)
    assert list(summary.failed) == [name] and summary.failed[name].startswith(reason)
    assert not (config.out / name).exists()


@pytest.mark.parametrize(("split", "bad"), [("4/0/0", 3), ("2/1/1", 1)])
def test_too_many_failures_or_an_empty_split_are_no_cohort_but_keep_what_is_done(
    tmp_path, split, bad
):
    config = config_of(tmp_path, split=split)
    splits = assign_splits(layouts.find("table", config.source).subjects, split, seed=0)
    names = [name for name, s in splits.items() if s == ("train" if bad == 3 else "val")][:bad]
    files = [tmp_path / "source" / "scans" / f"t2_{name[1]}.nii.gz" for name in names]
    for path in files:
        path.unlink()
    wanted = (f"{bad} of 4", "failures.tsv", files[0].name, "no such file")
    refuses(lambda: prepare(config, align), *wanted)
    assert not (config.out / "participants.tsv").exists()
    folders = {path.name for path in config.out.iterdir() if path.is_dir()}
    assert folders == set(splits) - set(names)
    for path in files:
        scan(path)
    assert sum(prepare(config, align).subjects.values()) == 4


def test_nobody_readable_is_refused_with_a_reason(tmp_path):
    config = config_of(tmp_path)
    for n in range(4):
        damage(tmp_path / "source" / "scans" / f"t1_{n}.nii.gz")
    refuses(lambda: prepare(config, align), "template", "t1_")


def test_a_mask_elsewhere_is_named(tmp_path):
    config = config_of(tmp_path)
    far = scanner()
    far[:3, 3] += 500
    save(tmp_path / "source" / "m.nii.gz", np.ones((4, 5, 6)), far, np.uint8)
    text = config.source.read_text()
    config.source.write_text(text.replace("n/a", "m.nii.gz"))
    refuses(lambda: prepare(config, align), "m.nii.gz")


# --- refusals


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"spacing": 0.0}, "--spacing"),
        ({"spacing": float("nan")}, "--spacing"),
        ({"spacing": -2.0}, "--spacing"),
        ({"seed": -1}, "--seed"),
        ({"jobs": 0}, "--jobs"),
        ({"split": "80/10"}, "--split"),
        ({"split": "0/1/1"}, "--split"),
        ({"split": "2/-1/1"}, "--split"),
        ({"split": "a/b/c"}, "--split"),
        ({"split": "1/2/3/4/5"}, "--split"),
        ({"entities": "acq=a"}, "--layout"),
        ({"entities": "acq", "layout": "bids"}, "--entities"),
        ({"entities": "acq=a/b", "layout": "bids"}, "--entities"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, changes, named):
    settings = {"layout": "table", "source": tmp_path, "out": tmp_path, **changes}
    refuses(lambda: PrepareConfig(**settings), named)


def test_an_unknown_layout_is_refused_by_the_command(tmp_path, capsys):
    assert cli.main(["prepare", str(tmp_path), "--layout=dicom", f"--out={tmp_path / 'c'}"]) == 2
    assert "--layout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"spacing": 9.0}, "--spacing"),
        ({"split": "2/1/1"}, "--split"),
        ({"seed": 1}, "--seed"),
        ({"labels": "freesurfer"}, "--labels"),
    ],
)
def test_a_cohort_of_other_settings_is_refused_and_left_alone(tmp_path, changes, named):
    config = config_of(tmp_path)
    prepare(config, align)
    before = contents(config.out)
    other = dataclasses.replace(config, **changes)
    refuses(lambda: prepare(other, align), named, "prepare.json")
    table(tmp_path / "source", subjects=5)
    refuses(lambda: prepare(config, align), "subjects", "prepare.json")
    assert contents(config.out) == before


def test_a_folder_with_other_content_and_a_file_are_refused(tmp_path):
    config = config_of(tmp_path)
    config.out.mkdir()
    (config.out / "mine.txt").write_text("mine")
    refuses(lambda: prepare(config, align), str(config.out))
    refuses(lambda: prepare(dataclasses.replace(config, out=config.source), align), "subjects.tsv")
    (config.out / "mine.txt").rename(config.out / "prepare.json")
    refuses(lambda: prepare(config, align), "prepare.json")


def test_missing_files_of_names_and_templates_are_named(tmp_path):
    config = config_of(tmp_path, labels="absent.tsv")
    refuses(lambda: prepare(config, align), "absent.tsv")
    config = config_of(tmp_path, template=tmp_path / "absent.nii.gz")
    refuses(lambda: prepare(config, align), "absent.nii.gz")
    assert not config.out.exists()


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_an_empty_or_missing_source_is_refused(tmp_path, layout):
    refuses(lambda: layouts.find(layout, tmp_path / "absent"), "absent")
    source = tmp_path / "t.tsv" if layout == "table" else tmp_path
    if layout == "table":
        source.write_text("participant_id\tT1w\n")
    refuses(lambda: layouts.find(layout, source), str(source), layout)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name\tT1w\na\tb\n", "participant_id"),
        ("participant_id\tT1\na\tb\n", "T1w"),
        ("participant_id\tT1w\n../a\tb\n", "../a"),
        ("participant_id\tT1w\n..\tb\n", "'..'"),
        ("participant_id\tT1w\na\\b\tb\n", repr("a\\b")),
        ("participant_id\tT1w\na\x1b[2J\tb\n", repr("a\x1b[2J")),
        (f"participant_id\tT1w\n{'x' * 201}\tb\n", "x" * 201),
        ("participant_id\tT1w\na\tb\na\tc\n", "'a'"),
        ("participant_id\tT1w\tsplit\na\tb\ttraining\n", "training"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path, text, named):
    (tmp_path / "subjects.tsv").write_text(text)
    refuses(lambda: layouts.find("table", tmp_path / "subjects.tsv"), "subjects.tsv", named)


# --- layouts


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_hcp_without_images_is_left_out_and_nonlinear_space_is_never_taken(tmp_path):
    brain = "T1w/T1w_acpc_dc_restore_brain.nii.gz"
    touch(tmp_path, f"1/{brain}", "2/MNINonLinear/T1w_restore_brain.nii.gz", "2/T1w/other.nii.gz")
    found = layouts.find("hcp", tmp_path)
    assert found.subjects == [Files("sub-1", {"T1w": tmp_path / "1" / brain})]
    assert list(found.left_out) == ["sub-2"] and found.aligned and found.freesurfer


def test_bids_takes_one_session_and_derivatives_of_that_image_only(tmp_path):
    derived = "derivatives/smriprep"
    touch(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_run-1_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_run-2_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz",
        f"{derived}/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        f"{derived}/sub-01/ses-b/anat/sub-01_ses-b_run-1_desc-brain_mask.nii.gz",
        f"{derived}/sub-01/ses-b/anat/sub-01_ses-b_run-1_space-MNI152Lin_desc-brain_mask.nii.gz",
        f"{derived}/sub-01/ses-b/anat/sub-01_ses-b_run-1_dseg.nii.gz",
        "sub-02/anat/sub-02_T2w.nii",
        f"{derived}/sub-02/anat/sub-02_dseg.nii.gz",
        f"{derived}/sub-02/anat/sub-02_desc-aparcaseg_dseg.nii.gz",
        "sub-03/func/sub-03_bold.nii.gz",
    )
    found = layouts.find("bids", tmp_path)
    session = tmp_path / "sub-01" / "ses-b" / "anat"
    mine = tmp_path / derived / "sub-01" / "ses-b" / "anat"
    assert found.subjects == [
        Files(
            "sub-01",
            {
                "T1w": session / "sub-01_ses-b_run-1_T1w.nii.gz",
                "FLAIR": session / "sub-01_ses-b_FLAIR.nii.gz",
            },
            mine / "sub-01_ses-b_run-1_desc-brain_mask.nii.gz",
            mine / "sub-01_ses-b_run-1_dseg.nii.gz",
        ),
        Files(
            "sub-02",
            {"T2w": tmp_path / "sub-02" / "anat" / "sub-02_T2w.nii"},
            None,
            tmp_path / derived / "sub-02" / "anat" / "sub-02_dseg.nii.gz",
        ),
    ]
    assert list(found.left_out) == ["sub-03"] and not found.freesurfer


def test_ixi_pairs_contrasts_by_number(tmp_path):
    one, other = "IXI-T1/IXI002-Guys-0828-T1.nii.gz", "IXI-T2/IXI002-Guys-0828-T2.nii.gz"
    touch(
        tmp_path, one, other, "IXI-T2/IXI012-HH-1211-T2.nii.gz", "IXI-PD/IXI012-HH-1211-PD.nii.gz"
    )
    subjects = layouts.find("ixi", tmp_path).subjects
    assert subjects[0] == Files("sub-IXI002", {"T1w": tmp_path / one, "T2w": tmp_path / other})
    assert [*subjects[1].images] == ["T2w"]


# --- splits and structures


def subjects(count):
    return [Files(f"p{n:02d}", {}) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "split", "wanted"),
    [
        (1, None, (1, 0, 0)),
        (2, None, (2, 0, 0)),
        (3, None, (1, 1, 1)),
        (9, None, (7, 1, 1)),
        (40, None, (32, 4, 4)),
        (40, "20/5/15", (20, 5, 15)),
        (40, "20/5/10/5", (20, 5, 10)),
        (100, "20/50/30", (20, 50, 30)),
        (147, "80/10/10", (117, 15, 15)),
        (10, "80/10/10", (8, 1, 1)),
        (4, "80/10/10", (2, 1, 1)),
        (41, "33.5/33.5/33", (13, 14, 14)),
        (40, "50/0/50", (20, 0, 20)),
        (40, "50%/25%/25%", (20, 10, 10)),
        (200, "60/10/10/20", (120, 20, 20)),
        (15, "0.8/0.1/0.1", (11, 2, 2)),
        (15, None, (11, 2, 2)),
        (3, "1/1/1", (1, 1, 1)),
        (3, "3/0/0", (3, 0, 0)),
    ],
)
def test_splits_have_the_numbers_that_were_asked_for(count, split, wanted):
    got = list(assign_splits(subjects(count), split, seed=0).values())
    assert tuple(got.count(s) for s in ("train", "val", "test")) == wanted


def test_splits_follow_the_seed_and_not_the_order(tmp_path):
    first = assign_splits(subjects(40), "20/5/15", seed=3)
    assert assign_splits(subjects(40)[::-1], "20/5/15", seed=3) == first
    assert assign_splits(subjects(40), "20/5/15", seed=4) != first
    assert parse_split("800/50/191") == (800, 50, 191)


@pytest.mark.parametrize(
    ("count", "split", "named"),
    [
        (40, "30/5/6", ("30 + 5 + 6 = 41", "40")),
        (40, "20/5/10", ("20 + 5 + 10 = 35", "40", "20/5/10/5")),
        (99, "80/10/9.5", ("= 99.5", "99")),
        (40, "0.8/0.1/0.2", ("0.8 + 0.1 + 0.2 = 1.1", "40")),
        (40, "1/0/0", ("1 + 0 + 0 = 1", "40")),
        (3, "40/20/20/20", ("none in train",)),
    ],
)
def test_a_split_that_adds_up_to_nothing_is_refused_with_the_sum(count, split, named):
    refuses(lambda: assign_splits(subjects(count), split, seed=0), "--split", split, *named)


def test_who_is_in_no_split_is_named(tmp_path):
    config = config_of(tmp_path, split="2/0/1/1")
    summary = prepare(config, align)
    (left,) = summary.left_out
    assert left not in read_cohort(config.out).participants
    assert f"{left}: left out, in no split by --split 2/0/1/1" in str(summary).splitlines()


def test_a_tables_own_splits_are_kept(tmp_path):
    own = [Files("a", {}, split="test"), Files("b", {}, split="train")]
    assert assign_splits(own, None, seed=0) == {"a": "test", "b": "train"}
    refuses(lambda: assign_splits(own, "1/0/1", seed=0), "--split")
    refuses(lambda: assign_splits([*own, Files("c", {})], None, seed=0), "2 of 3")


def test_parcels_become_cortex_and_their_neighbours_stay():
    labels = np.array([0, 2, 999, 1000, 1035, 1036, 1999, 2000, 2035, 2036]).reshape(1, 2, 5)
    wanted = [0, 2, 999, 3, 3, 1036, 1999, 42, 42, 2036]
    np.testing.assert_array_equal(merge_parcels(labels).ravel(), wanted)


def test_scored_is_what_half_of_the_labelled_people_have():
    labels = [[2, 24, 77], [2, 17], [17, 300], [17], []]
    assert structures(labels, freesurfer=True) == {2: STRUCTURES[2], 17: STRUCTURES[17]}
    assert structures(labels, freesurfer=False) == {2: "label-2", 17: "label-17"}
    assert structures([[]], freesurfer=True) == {}


def test_a_table_of_names_decides_what_is_scored(tmp_path):
    (tmp_path / "names.tsv").write_text("index\tname\n1003\tfront\n")
    config = config_of(tmp_path, labels=str(tmp_path / "names.tsv"))
    prepare(config, align)
    assert read_cohort(config.out).structures == {1003: "front"}
    labels = images.read(config.out / "p0" / "p0_dseg.nii.gz")
    assert labels.array.dtype == np.int16 and set(np.unique(labels.array)) == {
        0,
        2,
        17,
        1003,
        2030,
    }


# --- the common space


def test_halving_an_aligned_grid_is_the_mean_of_blocks_inside_the_mask():
    rng = np.random.default_rng(0)
    image, mask = rng.random((12, 10, 8)).astype(np.float32), rng.random((12, 10, 8)) < 0.8
    affine = matrix((20, 5, -8), (3, 4, 5), (1.5, 1.5, 1.5))
    to_fine = np.diag([2.0, 2, 2, 1])
    to_fine[:3, 3] = 0.5
    grid = Grid((6, 5, 4), affine @ to_fine)
    got, there = resampling.resample_masked(Volume(image, affine), mask, np.eye(4), grid)

    def blocks(array):
        return array.reshape(6, 2, 5, 2, 4, 2).sum(axis=(1, 3, 5))

    np.testing.assert_array_equal(there, blocks(mask) > 4)
    wanted = blocks(image * mask) / np.maximum(blocks(mask), 1)
    np.testing.assert_allclose(got[there], wanted[there], rtol=1e-5)  # float32 sums


def test_halving_labels_takes_the_most_frequent_of_each_block():
    labels = np.random.default_rng(0).choice([0, 5, 9], (8, 6, 4), p=[0.2, 0.3, 0.5])
    grid = Grid((4, 3, 2), np.diag([2.0, 2, 2, 1]))
    grid.affine[:3, 3] = 0.5
    got = resampling.resample_labels(Volume(labels, np.eye(4)), np.eye(4), grid)
    for index in np.ndindex(4, 3, 2):
        block = labels[tuple(slice(2 * i, 2 * i + 2) for i in index)]
        counts = np.bincount(block.ravel(), minlength=10)
        assert counts[got[index]] == counts.max()


def test_nothing_outside_the_field_of_view_is_made_up():
    image = Volume(np.full((4, 4, 4), 7, np.float32), np.eye(4))
    grid = Grid((12, 4, 4), np.eye(4))
    got, there = resampling.resample_masked(image, np.ones((4, 4, 4), bool), np.eye(4), grid)
    np.testing.assert_array_equal(there.any(axis=(1, 2)), np.arange(12) < 4)
    np.testing.assert_allclose(got[there], 7)


def ellipsoid(radii, centre=(0.0, 0.0, 0.0)):
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = np.subtract(centre, 49)
    at = millimetres((50, 50, 50), affine)
    mask = (((at - centre) / radii) ** 2).sum(axis=-1) < 1
    return Head(Volume(mask.astype(np.float32), affine), mask)


def by_moments(fixed, heads):
    """Axis-aligned affine that takes one ellipsoid to another, from centres and spreads."""

    def centre_and_spread(head):
        at = move(head.image.affine, np.argwhere(head.mask))
        return at.mean(axis=0), at.std(axis=0)

    centre, spread = centre_and_spread(fixed)
    out = []
    for head in heads:
        here, width = centre_and_spread(head)
        to_head = np.diag([*(width / spread), 1.0])
        to_head[:3, 3] = here - width / spread * centre
        out.append(to_head)
    return out


def test_the_mean_has_the_mean_size_whoever_comes_first():
    radii = np.array([[20.0, 30, 25], [30, 36, 25], [24, 30, 36]])
    heads = [ellipsoid(r) for r in radii]
    wanted = np.exp(np.log(radii).mean(axis=0))
    for order in ([0, 1, 2], [2, 1, 0]):
        subjects = [heads[n] for n in order]
        mean = template.mean_head(subjects, by_moments, spacing_mm=2.0, rounds=1)
        at = move(mean.image.affine, np.argwhere(mean.mask))
        # an ellipsoid's spread is its radius / √5; voxels of 2 mm
        np.testing.assert_allclose(at.std(axis=0) * np.sqrt(5), wanted, rtol=0.03)
        margins = np.r_[
            np.argwhere(mean.mask).min(0), mean.mask.shape - np.argwhere(mean.mask).max(0) - 1
        ]
        assert (2 * margins >= template.MARGIN_MM).all()


def test_people_are_aligned_to_the_mean_of_the_round_before():
    heads = [ellipsoid((20, 30, 25)), ellipsoid((30, 30, 30))]
    fixed = []

    def watched(head, heads):
        fixed.append(head)
        return by_moments(head, heads)

    mean = template.mean_head(heads, watched, spacing_mm=2.0, rounds=2)
    assert len(fixed) == 3 and fixed[0] is heads[0]
    # radii of √(20·30), 30 and √(25·30) mm from the second round on
    for head in (fixed[1], fixed[2], mean):
        assert abs(8 * head.mask.sum() / (4 / 3 * np.pi * 24.5 * 30 * 27.4) - 1) < 0.05


def test_fields_of_view_far_apart_are_brought_together_before_the_aligner_sees_them():
    template, head = ellipsoid((20, 30, 25)), ellipsoid((22, 27, 30), (300.0, -200, 150))

    def close(fixed, moving, *, mode, fixed_mask, moving_mask):
        distance = moving.affine[:3, 3] - fixed.affine[:3, 3]
        assert np.abs(distance).max() < 2 and moving_mask is head.mask and mode == "affine"
        return by_moments(Head(fixed, fixed_mask), [Head(moving, moving_mask)])[0]

    got = align_head(template, head, close)
    rim = np.array([[20.0, 0, 0], [0, -30, 0], [0, 0, 25], [0, 0, 0]])
    wanted = np.array([[322.0, -200, 150], [300, -227, 150], [300, -200, 180], [300, -200, 150]])
    np.testing.assert_allclose(move(got, rim), wanted, atol=0.5)  # voxels of 2 mm


def test_the_grid_holds_people_but_not_one_who_went_astray():
    sizes = np.linspace(20, 30, 11)
    heads = [ellipsoid((r, r, r)) for r in sizes]
    to_heads = [np.eye(4)] * 11
    plain = template.grid_over(heads, to_heads, 2.0)
    low = plain.affine[:3, 3] - 1
    high = low + 2 * np.array(plain.shape)
    assert (low <= -29 - 8 + 1).all() and (high >= 29 + 8 - 1).all()  # all but the widest tenth
    assert (np.array(plain.shape) <= 2 * (30 + 8) / 2 + 8).all()
    to_heads = [*to_heads[:5], matrix((0, 0, 0), (200, 200, -200)), *to_heads[6:]]
    astray = template.grid_over(heads, to_heads, 2.0)
    assert (np.abs(np.subtract(astray.shape, plain.shape)) <= 8).all()


def test_whoever_cannot_be_aligned_is_not_in_the_mean():
    heads = [ellipsoid((20, 30, 25)), ellipsoid((40, 40, 40))]

    def only_first(fixed, heads):
        return [by_moments(fixed, heads)[0], *[None] * (len(heads) - 1)]

    mean = template.mean_head(heads, only_first, spacing_mm=2.0, rounds=1)
    volume_mm3 = 8 * mean.mask.sum()
    np.testing.assert_allclose(volume_mm3, 4 / 3 * np.pi * 20 * 30 * 25, rtol=0.03)
    refuses(
        lambda: template.mean_head(
            heads, lambda fixed, heads: [None] * len(heads), spacing_mm=2.0, rounds=1
        ),
        "--template",
    )


def test_a_template_file_gives_space_and_extent(tmp_path):
    scan(tmp_path / "template.nii.gz")
    config = config_of(tmp_path, template=tmp_path / "template.nii.gz")
    prepare(config, align)
    stored = images.read(config.out / "template.nii.gz")
    at = move(stored.affine, np.argwhere(stored.array))
    np.testing.assert_allclose(at.mean(axis=0), CENTRE_MM, atol=1)
    corner = move(stored.affine, np.array([[-0.5] * 3, np.array(stored.array.shape) - 0.5]))
    assert (corner[0] <= CENTRE_MM - RADII_MM - 7).all()  # 8 mm less half a voxel of the file
    assert (corner[1] >= CENTRE_MM + RADII_MM + 7).all()
    assert ndimage.label(stored.array > 0)[1] == 1  # pyright: ignore[reportIndexIssue]
