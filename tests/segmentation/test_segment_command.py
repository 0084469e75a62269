"""`jaxreg segment` and `jaxreg.segment` with the bundled networks, on the ICBM template's brain."""

import csv
import json
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from docstring_examples import run_examples
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

import jaxreg
from jaxreg import cli
from jaxreg.data.mni152 import find_mni152
from jaxreg.data.synthetic.icbm import load_template
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io.checksums import file_sha256
from jaxreg.io.images import write
from jaxreg.io.tables import read_table
from jaxreg.segmentation.batch import folders_of
from jaxreg.segmentation.files import NAMES, SegmentedImage
from jaxreg.segmentation.networks import load_segmentation

needs_template = pytest.mark.skipif(
    find_mni152() is None, reason="the template mni152 is not installed"
)


@pytest.fixture(scope="module")
def brain():
    """A T1w brain on voxels of 3 mm, turned by 20°, and the template that it is."""
    template = load_template(spacing_mm=3.0)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (5, -10, 20), degrees=True).as_matrix()
    image = np.where(template.mask, 200 * template.images["T1w"], 0).astype(np.float32)
    return Volume(image, turn @ template.affine), template


def loaded(path) -> Any:
    return nib.load(path)


def stored(volume, order) -> Any:
    """The same image with its axes stored in another order."""
    own: Any = nib.Nifti1Image(volume.array, volume.affine)
    axes = nib.orientations.axcodes2ornt(order)
    return own.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(volume.affine), axes)
    )


@needs_template
def test_a_brain_is_segmented_on_its_own_grid_and_written_in_its_own_order(brain, tmp_path, capsys):
    volume, template = brain
    image = stored(volume, "PSR")
    path, out = tmp_path / "sub-1_T1w.nii.gz", tmp_path / "out"
    nib.save(image, path)
    assert cli.main(["segment", str(path), "--out", str(out), "--brain", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {p.name for p in out.iterdir()} == set(NAMES)
    labels, mask, cut = (loaded(out / f"{n}.nii.gz") for n in ("dseg", "mask", "brain"))
    for written in (labels, mask, cut):
        assert written.shape == image.shape
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
    true = stored(Volume(template.mask.astype(np.uint8), volume.affine), "PSR").get_fdata() > 0
    found = mask.get_fdata() > 0
    assert 2 * (true & found).sum() / (true.sum() + found.sum()) > 0.93
    assert set(np.unique(labels.get_fdata()[~found])) == {0.0}
    np.testing.assert_array_equal(cut.get_fdata(), np.where(found, image.get_fdata(), 0))
    with (out / "volumes.tsv").open(encoding="utf-8") as table:
        rows = {row["name"]: float(row["ml"]) for row in csv.DictReader(table, delimiter="\t")}
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    assert rows["Brain-Mask"] == pytest.approx(found.sum() * voxel_ml, abs=0.01)
    ventricle = rows["Left-Lateral-Ventricle"]
    assert ventricle == pytest.approx((labels.get_fdata() == 4).sum() * voxel_ml, rel=0.25)
    assert said["images"][str(path)]["brain_ml"] == pytest.approx(rows["Brain-Mask"], abs=0.1)
    assert "Left-Thalamus" in (out / "report.html").read_text(encoding="utf-8")


@needs_template
def test_noise_in_the_shape_of_a_brain_is_named_as_doubtful(brain, tmp_path, capsys):
    volume, template = brain
    noise = gaussian_filter(np.random.default_rng(0).normal(size=volume.array.shape), 1.0)
    noise = np.where(template.mask, 100 + 40 * noise / noise.std(), 0).clip(0)
    write(tmp_path / "noise.nii.gz", Volume(noise.astype(np.float32), volume.affine))
    write(tmp_path / "brain.nii.gz", volume)
    for name in ("noise", "brain"):
        argv = ["segment", str(tmp_path / f"{name}.nii.gz"), f"--out={tmp_path / name}"]
        assert cli.main(argv) == 0
        warned = "the segmentation is doubtful" in capsys.readouterr().err
        record = json.loads((tmp_path / name / "segmentation.json").read_text())
        page = (tmp_path / name / "report.html").read_text(encoding="utf-8")
        doubtful = name == "noise"
        assert warned is doubtful and ("is doubtful" in page) is doubtful
        assert (record["agreement"] < 0.8) is doubtful and (record["doubt"] is None) is not doubtful


@pytest.mark.slow
@needs_template
def test_left_is_left_and_python_gives_what_the_command_writes(brain, tmp_path):
    volume, template = brain
    found = jaxreg.segment((volume.array, volume.affine))
    left = found.labels == 10  # the left thalamus
    assert np.argwhere(left)[:, 0].mean() < np.argwhere(found.labels == 49)[:, 0].mean()
    found.save(tmp_path / "one")
    write(tmp_path / "brain.nii.gz", volume)
    cli.main(["segment", str(tmp_path / "brain.nii.gz"), "--out", str(tmp_path / "two"), "--quiet"])
    for name in ("dseg.nii.gz", "mask.nii.gz", "volumes.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.slow
@needs_template
def test_of_several_images_one_that_shows_no_brain_stops_nobody(brain, tmp_path, capsys):
    volume, _ = brain
    noise = np.random.default_rng(0).gamma(2, 50, volume.array.shape).astype(np.float32)
    write(tmp_path / "a_T1w.nii.gz", volume)
    write(tmp_path / "b_T1w.nii.gz", Volume(noise, volume.affine))
    (tmp_path / "images.tsv").write_text("image\na_T1w.nii.gz\nb_T1w.nii.gz\n")
    out = tmp_path / "out"
    assert cli.main(["segment", f"--images={tmp_path / 'images.tsv'}", f"--out={out}"]) == 1
    assert (out / "a_T1w" / "dseg.nii.gz").is_file() and not (out / "b_T1w").exists()
    assert "b_T1w.nii.gz: expected the structures of a brain" in capsys.readouterr().err
    shutil.copy(tmp_path / "a_T1w.nii.gz", tmp_path / "c_T1w.nii.gz")
    before = (out / "a_T1w" / "dseg.nii.gz").stat()
    images = [str(tmp_path / f"{name}_T1w.nii.gz") for name in "ac"]
    assert cli.main(["segment", *images, f"--out={out}"]) == 0  # goes on where it was
    assert (out / "a_T1w" / "dseg.nii.gz").stat() == before
    assert f"{images[0]}: segmented before" in capsys.readouterr().out
    one, other = read_table(out / "volumes.tsv", ("image", "Brain-Mask", "Left-Thalamus"))
    assert [one.pop("image"), other.pop("image")] == images and one == other
    own = read_table(out / "a_T1w" / "volumes.tsv", ("name", "ml"))
    assert one == {row["name"]: row["ml"] for row in own}


@needs_template
def test_results_of_another_image_or_without_what_is_wanted_are_refused(brain, tmp_path, capsys):
    volume, _ = brain
    images = [tmp_path / f"{name}.nii" for name in "ab"]
    for path in images:
        write(path, volume)
    networks = load_segmentation(None)[0].sha256
    for path in images:
        record = {"image_sha256": file_sha256(path), "networks_sha256": networks}
        folder = tmp_path / "out" / path.stem
        folder.mkdir(parents=True)
        (folder / "segmentation.json").write_text(json.dumps(record))
        (folder / "volumes.tsv").write_text("number\tname\tml\n0\tBrain-Mask\t1000.0\n")
    argv = ["segment", *map(str, images), f"--out={tmp_path / 'out'}"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.count("segmented before") == 2
    assert cli.main([*argv, "--brain"]) == 2
    write(images[1], Volume(volume.array + 1, volume.affine))
    assert cli.main(argv) == 2
    assert f"{tmp_path / 'out' / 'b'}: holds another run" in capsys.readouterr().err


def test_what_cannot_be_segmented_is_refused_in_one_line(tmp_path, capsys):
    shape = (40, 44, 36)
    ball = (np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2) ** 2
    phantom = Volume(np.where(ball.sum(axis=0) < 15**2, 100.0, 0).astype(np.float32), np.eye(4) * 4)
    phantom.affine[3, 3] = 1
    phantom.array[ball.sum(axis=0) < 12**2] += (
        np.random.default_rng(0)
        .normal(0, 4, int((ball.sum(axis=0) < 12**2).sum()))
        .astype(np.float32)
    )
    write(tmp_path / "phantom.nii.gz", phantom)
    out = tmp_path / "out"
    for path, why in (("phantom.nii.gz", "expected"), ("absent.nii.gz", "no such file")):
        assert cli.main(["segment", str(tmp_path / path), f"--out={out}"]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert why in line and path in line
    assert not out.exists()
    with pytest.raises(InputError, match="twice"):
        folders_of([tmp_path / "a" / "t1.nii.gz", tmp_path / "b" / "t1.nii"], out)


@pytest.mark.slow
@needs_template
def test_the_examples_of_the_docstrings_run(brain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("head.nii.gz", brain[0])
    for function in (jaxreg.segment, SegmentedImage.save):
        run_examples(function)
