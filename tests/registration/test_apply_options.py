"""Interpolation, fill and the points' convention of `jaxreg apply`, from files to files."""

import numpy as np
import pytest
import SimpleITK as sitk

from jaxreg import cli
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import read, write
from jaxreg.io.itk_transforms import write_affine
from jaxreg.io.points import read_points

AFFINE = np.array([[2.5, 0, 0, -8], [0, 2.8, 0, 4], [0, 0, 3, -6], [0, 0, 0, 1]])


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An image, a label map and a shift of (3, 1, -2) mm in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    write("image.nii.gz", Volume(rng.normal(50, 9, (9, 8, 7)).astype(np.float32), AFFINE))
    write("labels.nii.gz", Volume(rng.integers(0, 4, (9, 8, 7)).astype(np.int16), AFFINE))
    shift = np.eye(4)
    shift[:3, 3] = (3, 1, -2)
    write_affine("shift.mat", shift)
    return tmp_path


def apply(*flags):
    return cli.main(["apply", "shift.mat", *flags])


@pytest.mark.parametrize(
    ("flags", "interpolator"),
    [((), sitk.sitkLinear), (("--interpolation=bspline",), sitk.sitkBSpline)],
)
def test_an_image_is_moved_as_itk_moves_it(files, flags, interpolator):
    given = ("--image=image.nii.gz", "--reference=image.nii.gz", "--out=moved.nii.gz")
    assert apply(*given, "--fill=-3", *flags) == 0
    image = sitk.ReadImage("image.nii.gz")
    wanted = sitk.Resample(image, image, sitk.ReadTransform("shift.mat"), interpolator, -3.0)
    wanted = sitk.GetArrayFromImage(wanted).transpose(2, 1, 0)
    found = read("moved.nii.gz").array
    both = (found != -3) & (wanted != -3)
    assert both.sum() > 200
    inner = np.zeros(both.shape, bool)
    inner[:7, 1:, 1:] = True  # ITK continues a spline beyond the outer centres in another way
    np.testing.assert_allclose(found[both & inner], wanted[both & inner], atol=1e-3)
    assert (found[-1] == -3).all()


def test_labels_are_smooth_only_where_that_is_asked_for(files):
    given = ("--labels=labels.nii.gz", "--reference=image.nii.gz")
    assert apply(*given, "--out=nearest.nii.gz") == 0
    assert apply(*given, "--out=smooth.nii.gz", "--interpolation=label", "--fill=7") == 0
    nearest, smooth = read("nearest.nii.gz").array, read("smooth.nii.gz").array
    assert set(np.unique(nearest)) <= {0, 1, 2, 3} and (smooth[-1] == 7).all()
    assert (nearest != smooth)[:-2].any()


def test_points_of_ants_are_lps(files):
    (files / "p.csv").write_text("x,y,z,t\n1,2,3,0\n-4,5,6,0\n")
    assert apply("--points=p.csv", "--out=ras.csv") == 0
    assert apply("--points=p.csv", "--out=lps.csv", "--points-convention=lps") == 0
    ras, lps = read_points("ras.csv").points, read_points("lps.csv", convention="lps").points
    np.testing.assert_allclose(ras, [[-2, 1, 5], [-7, 4, 8]], atol=1e-6)
    np.testing.assert_allclose(lps, [[-4, -3, 5], [1, -6, 8]], atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--image=image.nii.gz", "--interpolation=label"), "nearest, linear, bspline"),
        (("--labels=labels.nii.gz", "--interpolation=linear"), "nearest, label"),
        (("--labels=labels.nii.gz", "--fill=0.5"), "--fill"),
        (("--points=p.csv", "--fill=1"), "--points"),
    ],
)
def test_what_does_not_fit_is_refused(files, capsys, flags, named):
    (files / "p.csv").write_text("x,y,z\n1,2,3\n")
    points = flags[0].startswith("--points")
    where = ["--out=p2.csv"] if points else ["--reference=image.nii.gz", "--out=moved.nii.gz"]
    assert apply(*flags, *where) == 2
    assert named in capsys.readouterr().err
