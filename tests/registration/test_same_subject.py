"""`jaxreg register --same-subject`: known maps, halfway between both, and images that go along."""

import json
import re
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from registration_data import motion, same_but_for_timings, write_subject
from scipy.linalg import sqrtm

import jaxreg
from jaxreg.cli import main
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid
from jaxreg.geometry.transforms import affine_points
from jaxreg.io.itk_transforms import read_transform
from jaxreg.registration import finished
from jaxreg.registration.output.halfway import halfway_grid, rigid_root

BETWEEN = motion(8, (6, -4, 5))
"""Where the T2w of the subject lies against its T1w."""
QUICK: dict[str, Any] = {"same_subject": True}


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


def matrix_of(path) -> np.ndarray:
    return np.asarray(read_transform(path)[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    fixed = write_subject(folder, 3, "T1w", axes="psl", spacing_mm=(7.0, 8.0, 6.0))
    moving = write_subject(folder, 3, "T2w", axes="oblique", motion=BETWEEN)
    return fixed, moving


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """A run of the command, in which the mask of the moving image goes along as an image."""
    fixed, moving = files
    out = tmp_path_factory.mktemp("run") / "run"
    images = [str(fixed["image"]), str(moving["image"])]
    flags = ["--same-subject", "--halfway", "--also", str(moving["mask"]), "--quiet"]
    assert main(["register", *images, *flags, "--out", str(out)]) == 0
    return out


def test_the_map_of_one_subject_is_found(run):
    found = matrix_of(run / "affine.mat")
    np.testing.assert_allclose(found[:3, :3].T @ found[:3, :3], np.eye(3), atol=1e-6)
    points = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    apart = affine_points(found, points) - affine_points(BETWEEN, points)
    assert np.linalg.norm(apart, axis=1).mean() < 0.8  # a tenth of a voxel of 8 mm


def test_halfway_both_images_are_resampled_alike(run, files):
    to_fixed, to_moving = (matrix_of(run / f"halfway_to_{n}.mat") for n in ("fixed", "moving"))
    found = matrix_of(run / "affine.mat")
    np.testing.assert_allclose(to_moving @ np.linalg.inv(to_fixed), found, atol=1e-6)
    np.testing.assert_allclose(to_moving, np.linalg.inv(to_fixed), atol=1e-6)
    halves = [load(run / f"{n}_halfway.nii.gz") for n in ("fixed", "moving")]
    np.testing.assert_array_equal(halves[0].affine, halves[1].affine)
    for role, half, side in zip(("fixed", "moving"), halves, files, strict=True):
        applied = jaxreg.apply(
            run / f"halfway_to_{role}.mat", image=side["image"], reference=half
        ).image
        np.testing.assert_allclose(half.get_fdata(), applied.get_fdata(), atol=0.5)  # of 1000


def test_another_image_of_the_session_goes_by_the_same_map(run, files):
    name = files[1]["mask"].name
    along = load(run / f"moved_{name}")
    moved = jaxreg.apply(run / "affine.mat", image=files[1]["mask"], reference=files[0]["image"])
    np.testing.assert_allclose(along.get_fdata(), moved.image.get_fdata(), atol=0.01)


def test_a_label_map_that_goes_along_as_an_image_is_warned_of(files, run):
    lines: list[str] = []
    path = files[1]["mask"]
    result = jaxreg.register(
        files[0]["image"], files[1]["image"], also=[path], say=lines.append, **QUICK
    )
    warning = f"{path}: looks like a label map"
    assert any(line.startswith(f"warning: {warning}") for line in lines)
    (said,) = [line for line in result.warnings if line.startswith(warning)]
    assert "jaxreg apply --labels moves it" in said
    assert said in json.loads((run / "provenance.json").read_text(encoding="utf-8"))["warnings"]


def test_python_writes_what_the_command_writes(run, files, tmp_path):
    fixed, moving = files
    result = jaxreg.register(
        fixed["image"], moving["image"], same_subject=True, halfway=True, also=[moving["mask"]]
    )
    assert same_but_for_timings(run, result.save(tmp_path / "python")) > 8


@pytest.mark.parametrize("seed", range(4))
def test_the_root_of_a_rigid_map_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    matrix = motion(rng.uniform(1, 170), tuple(rng.uniform(-80, 80, 3)))
    root = rigid_root(matrix)
    np.testing.assert_allclose(root @ root, matrix, atol=1e-9)
    np.testing.assert_allclose(root, np.real(sqrtm(matrix)), atol=1e-6)


def test_the_halfway_grid_lies_in_the_middle():
    fixed = Grid((5, 6, 7), np.diag([2.0, 3.0, -4.0, 1.0]))
    shift = np.eye(4)
    shift[:3, 3] = 1.0, -2.0, 6.0
    grid = halfway_grid(fixed, rigid_root(shift))
    np.testing.assert_allclose(grid.affine[:3, 3], (0.5, -1.0, 3.0))
    np.testing.assert_array_equal(grid.affine[:3, :3], fixed.affine[:3, :3])


def test_what_does_not_fit_one_subject_is_refused():
    assert RegisterConfig(same_subject=True).transform == "rigid"
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"same_subject": True, "transform": "affine"}, "--same-subject: .* got affine"),
        ({"halfway": True}, "--halfway: read only with --same-subject"),
        ({"same_subject": True, "lam": 0.5}, "--lam: not read with"),
    )
    for settings, said in refused:
        with pytest.raises(InputError, match=said):
            RegisterConfig(**settings)


def test_a_table_of_pairs_reads_no_also(files, tmp_path, capsys):
    also = ["--also", str(files[0]["image"])]
    table = tmp_path / "pairs.tsv"
    assert main(["register", "--pairs", str(table), *also, "--out", str(tmp_path / "o")]) == 2
    assert "--also: not read with --pairs" in capsys.readouterr().err


@pytest.fixture
def never(monkeypatch):
    """A registration that must not begin."""

    def began(*_, **__):
        raise AssertionError("the registration began")

    monkeypatch.setattr(finished, "register_pair", began)


def _absent(path, of):
    pass


def _damaged(path, of):
    path.write_bytes(of.read_bytes()[:-40])


def _not_finite_at_the_end(path, of):
    image = load(of)
    array = np.repeat(np.asarray(image.dataobj)[..., None], 3, axis=3)
    array[2, 3, 4, 2] = np.nan
    Nifti1Image(array, image.affine).to_filename(path)


@pytest.mark.parametrize("make", [_absent, _damaged, _not_finite_at_the_end])
def test_another_image_that_cannot_be_used_is_refused_before_the_work(files, tmp_path, never, make):
    path = tmp_path / "other.nii.gz"
    make(path, files[1]["image"])
    with pytest.raises(InputError, match=re.escape(str(path))):
        jaxreg.register(files[0]["image"], files[1]["image"], also=[path], **QUICK)


def test_another_image_beyond_the_map_leaves_a_page_that_says_so(files, tmp_path, capsys):
    image, path, out = load(files[1]["image"]), tmp_path / "other.nii.gz", tmp_path / "run"
    away = np.eye(4)
    away[:3, 3] = 5000
    Nifti1Image(np.asarray(image.dataobj), away @ image.affine).to_filename(path)
    images = [str(side["image"]) for side in files]
    flags = ["--same-subject", f"--also={path}", f"--out={out}"]
    assert main(["register", *images, *flags]) == 2
    assert f"{path}: the transform leads no voxel" in capsys.readouterr().err
    assert "leads no voxel" in (out / "report.html").read_text(encoding="utf-8")
    assert [file.name for file in out.iterdir()] == ["report.html"]
