"""Warp formats: a shift and a smooth field through ITK, FSL and FreeSurfer files.

Oracles read the files by themselves: SimpleITK, fslpy (FSL's own Python library) and surfa
(FreeSurfer's). Fixed and moving grids differ in size, spacing, place and orientation.
"""

import functools
import json
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import affine_points, compose, map_points
from jaxreg.io import images
from jaxreg.io.displacement_fields import read_field, write_field
from jaxreg.io.fsl import fsl_vectors
from jaxreg.registration.convert import convert_file

TOLERANCE_MM = 0.01
ORIENTATIONS = ["ras", "las", "oblique", "psl"]
DISPLACEMENTS = ["shift", "smooth", "affine"]


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


def grid(orientation, shape, spacing_mm, centre_mm):
    turn = Rotation.from_euler("zx", [15, 10], degrees=True).as_matrix()
    axes = {
        "ras": np.eye(3),
        "las": np.diag([-1.0, 1.0, 1.0]),
        "oblique": turn,
        "psl": turn @ np.array([[0, 0, -1.0], [1.0, 0, 0], [0, 1.0, 0]]),
    }[orientation]
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag(spacing_mm)
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def displaced(points, kind):
    """Where a field takes RAS mm, by a formula."""
    if kind == "shift":
        return points + np.array([3.5, -2.25, 7.75])
    if kind == "affine":
        matrix = np.eye(4)
        matrix[:3, :3] = 1.1 * Rotation.from_euler("xyz", [8, -20, 13], degrees=True).as_matrix()
        matrix[:3, 3] = 12.0, -30.0, 21.0
        return affine_points(matrix, points)
    x, y, z = points.T / 9.0
    return points + 4 * np.stack([np.sin(x + y), np.cos(y - 0.5) * np.sin(z), np.sin(x + z)], -1)


def pair(folder, fixed_orientation, moving_orientation, kind):
    """(fixed grid, moving grid, fixed centres in RAS mm, where they go) with files beside."""
    fixed = grid(fixed_orientation, (9, 8, 7), (2.0, 1.5, 3.0), np.array([4.0, -7.0, 11.0]))
    moving = grid(moving_orientation, (10, 12, 6), (1.2, 2.5, 1.0), np.array([-31.0, 12.0, 40.0]))
    for grid_, name in ((fixed, "fixed"), (moving, "moving")):
        array = np.random.default_rng(0).random(grid_.shape).astype(np.float32)
        images.write(folder / f"{name}.nii.gz", Volume(array, grid_.affine))
    write_field(folder / "warp.nii.gz", compose(functools.partial(displaced, kind=kind), fixed))
    centres = affine_points(fixed.affine, np.indices(fixed.shape).reshape(3, -1).T.astype(float))
    return fixed, moving, centres, displaced(centres, kind)


cases = pytest.mark.parametrize(
    ("fixed", "moving", "kind"),
    [(f, m, "smooth") for f in ORIENTATIONS for m in ORIENTATIONS]
    + [(f, m, k) for f, m in (("las", "oblique"), ("psl", "las")) for k in ("shift", "affine")],
)


@cases
def test_simpleitk_reads_the_itk_warp(tmp_path, fixed, moving, kind):
    _, _, centres, wanted = pair(tmp_path, fixed, moving, kind)
    convert_file(tmp_path / "warp.nii.gz", "itk", tmp_path / "out.nii")
    image = sitk.ReadImage(str(tmp_path / "out.nii"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(image)
    lps = np.array([-1.0, -1.0, 1.0])
    got = [transform.TransformPoint((p * lps).tolist()) for p in centres]
    assert np.abs(np.array(got) * lps - wanted).max() < TOLERANCE_MM


@cases
def test_fslpy_reads_the_fsl_warp(tmp_path, fixed, moving, kind):
    fnirt = pytest.importorskip("fsl.transform.fnirt", reason="fslpy is in the extra `test`")
    image = pytest.importorskip("fsl.data.image", reason="fslpy is in the extra `test`")
    _, _, centres, wanted = pair(tmp_path, fixed, moving, kind)
    convert_file(
        tmp_path / "warp.nii.gz", "fsl", tmp_path / "fsl.nii.gz", moving=tmp_path / "moving.nii.gz"
    )
    reference = image.Image(str(tmp_path / "fixed.nii.gz"))
    source = image.Image(str(tmp_path / "moving.nii.gz"))
    warp = fnirt.readFnirt(
        str(tmp_path / "fsl.nii.gz"), src=source, ref=reference, defType="relative"
    )
    got = warp.transform(centres, from_="world", to="world")
    assert np.abs(got - wanted).max() < TOLERANCE_MM


@cases
def test_surfa_reads_the_freesurfer_warp(tmp_path, monkeypatch, fixed, moving, kind):
    surfa = pytest.importorskip("surfa", reason="surfa is not installed (pip install surfa)")
    fixed_grid, moving_grid, _, wanted = pair(tmp_path, fixed, moving, kind)
    convert_file(
        tmp_path / "warp.nii.gz",
        "freesurfer",
        tmp_path / "w.mgz",
        moving=tmp_path / "moving.nii.gz",
    )
    # surfa 0.6.3 reads with np.fromstring, whose binary mode NumPy 2.3 removed
    monkeypatch.setattr(np, "fromstring", lambda data, dtype: np.frombuffer(data, dtype))
    warp = surfa.load_warp(str(tmp_path / "w.mgz"))
    assert warp.format == surfa.Warp.Format.abs_crs
    np.testing.assert_allclose(warp.target.vox2world.matrix, fixed_grid.affine, atol=1e-4)
    np.testing.assert_allclose(warp.source.vox2world.matrix, moving_grid.affine, atol=1e-4)
    assert tuple(warp.source.shape) == moving_grid.shape
    got = warp.convert(surfa.Warp.Format.abs_ras).data.reshape(-1, 3)
    assert np.abs(got - wanted).max() < TOLERANCE_MM


def test_nibabel_reads_the_freesurfer_warp_as_an_mgh_volume(tmp_path):
    fixed, moving, _, wanted = pair(tmp_path, "oblique", "las", "smooth")
    convert_file(
        tmp_path / "warp.nii.gz",
        "freesurfer",
        tmp_path / "w.mgh",
        moving=tmp_path / "moving.nii.gz",
    )
    data = (tmp_path / "w.mgh").read_bytes()
    assert data[:4] == bytes([0, 0, 3, 1])  # intent 3 (warp map) above version 1
    mgh: Any = nib.MGHImage  # pyright: ignore[reportPrivateImportUsage]
    image = mgh.from_bytes(bytes([0, 0, 0, 1]) + data[4:])  # nibabel knows intent 0 alone
    assert image.shape == (*fixed.shape, 3)
    np.testing.assert_allclose(image.affine, fixed.affine, atol=1e-4)
    index = np.asarray(image.dataobj, np.float64).reshape(-1, 3)
    assert np.abs(affine_points(moving.affine, index) - wanted).max() < TOLERANCE_MM


def test_an_fsl_warp_between_equal_las_grids_is_the_world_displacement_with_x_turned(tmp_path):
    # LAS is FSL's own order: x grows to the left, and nothing is counted backwards
    fixed, _, centres, wanted = pair(tmp_path, "las", "las", "smooth")
    got = fsl_vectors(read_field(tmp_path / "warp.nii.gz"), fixed).reshape(-1, 3)
    np.testing.assert_allclose(got, (wanted - centres) * [-1, 1, 1], atol=1e-4)


def test_an_fsl_warp_is_a_float32_4d_image_with_fsl_s_intent(tmp_path):
    pair(tmp_path, "las", "las", "shift")
    convert_file(
        tmp_path / "warp.nii.gz", "fsl", tmp_path / "f.nii.gz", moving=tmp_path / "moving.nii.gz"
    )
    image = load(tmp_path / "f.nii.gz")
    assert image.shape == (9, 8, 7, 3) and image.get_data_dtype() == np.float32
    assert image.header["intent_code"] == 2006


@pytest.mark.parametrize("name", ["warp.nii.gz", "inverse_warp.nii.gz"])
def test_the_geometry_is_taken_from_the_provenance(tmp_path, name):
    fixed, moving, _, _ = pair(tmp_path, "las", "oblique", "smooth")
    lies_on, other = (fixed, "moving") if name == "warp.nii.gz" else (moving, "fixed")
    write_field(tmp_path / name, compose(functools.partial(displaced, kind="smooth"), lies_on))
    record = {
        role: {"grid": {"shape": g.shape, "affine": g.affine.tolist()}}
        for role, g in (("fixed", fixed), ("moving", moving))
    }
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    convert_file(tmp_path / name, "fsl", tmp_path / "a.nii")
    convert_file(tmp_path / name, "fsl", tmp_path / "b.nii", moving=tmp_path / f"{other}.nii.gz")
    a, b = (np.asarray(load(tmp_path / n).dataobj) for n in ("a.nii", "b.nii"))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_bad_input_is_one_line_and_writes_nothing(tmp_path):
    pair(tmp_path, "las", "las", "shift")
    warp, moving = tmp_path / "warp.nii.gz", tmp_path / "moving.nii.gz"
    sheared = np.diag([1.0, 2.0, 3.0, 1.0])
    sheared[0, 1] = 0.5
    images.write(tmp_path / "sheared.nii", Volume(np.zeros((3, 4, 5)), sheared))
    calls = [
        ((warp, "spm", tmp_path / "o.nii", moving), "--to: expected one of itk, fsl, freesurfer"),
        ((warp, "fsl", tmp_path / "o.mgz", moving), "o.mgz: expected a name that ends in .nii"),
        ((warp, "freesurfer", tmp_path / "o.nii", moving), "ends in .mgz"),
        (
            (warp, "fsl", tmp_path / "o.nii", None),
            "warp.nii.gz: expected --moving or a provenance.json",
        ),
        ((warp, "itk", warp, None), "an output that is no input"),
        ((moving, "fsl", tmp_path / "o.nii", moving), "expected an ITK displacement field"),
        ((tmp_path / "none.nii", "fsl", tmp_path / "o.nii", moving), "no such file"),
        ((warp, "freesurfer", tmp_path / "o.mgz", tmp_path / "sheared.nii"), "orthogonal axes"),
    ]
    before = sorted(p.name for p in tmp_path.iterdir())
    for (*arguments, source), message in calls:
        with pytest.raises(InputError, match=message) as error:
            convert_file(*arguments, moving=source)
        assert "\n" not in str(error.value)
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(InputError, match="no geometry"):
        convert_file(warp, "fsl", tmp_path / "o.nii")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "provenance.json"])


def test_a_converted_itk_warp_is_the_same_warp(tmp_path):
    _, _, centres, wanted = pair(tmp_path, "psl", "ras", "affine")
    convert_file(tmp_path / "warp.nii.gz", "itk", tmp_path / "out.nii.gz")
    assert (tmp_path / "out.nii.gz").read_bytes() == (tmp_path / "warp.nii.gz").read_bytes()
    got = map_points([read_field(tmp_path / "out.nii.gz")], centres)
    assert np.abs(got - wanted).max() < TOLERANCE_MM
