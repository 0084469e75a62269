"""Headers that readers take differently; oracle: SimpleITK on the file itself."""

import gzip
import itertools
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from registration_data import motion

from jaxreg.geometry.field import Field
from jaxreg.geometry.transforms import affine_points, map_points, resample, voxel_indices
from jaxreg.io.displacement_fields import read_field, write_field
from jaxreg.io.headers import read_header
from jaxreg.io.images import image_like, read, read_grid, save
from jaxreg.io.itk_geometry import usable_qform

SHAPE = (7, 9, 6)
AFFINE = motion(12, (-31, 20, 5)) @ np.diag([-2.0, 1.5, 3.0, 1.0])
OTHER = motion(-7, (9, -15, 8)) @ AFFINE
VALUES = np.random.default_rng(0).uniform(10, 90, SHAPE).astype(np.float32)


def write(path, *, codes, forms=(AFFINE, OTHER), unit="mm"):
    image = Nifti1Image(VALUES, forms[0])
    image.set_sform(forms[0], code=codes[0])
    image.set_qform(forms[1], code=codes[1])
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


def by_itk(path):
    """The affine (RAS mm) that SimpleITK reads."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("codes", [*itertools.product((0, 1, 2, 4), repeat=2)])
@pytest.mark.parametrize("forms", [(AFFINE, OTHER), (AFFINE, AFFINE)])
def test_the_grid_is_where_itk_reads_it(tmp_path, codes, forms):
    path = write(tmp_path / "v.nii.gz", codes=codes, forms=forms)
    np.testing.assert_allclose(read_grid(path).affine, by_itk(path), atol=2e-3)
    volume = read(path)
    point = volume.affine @ [3, 2, 4, 1]
    itk = sitk.ReadImage(str(path))
    there = itk.TransformPhysicalPointToIndex((-point[0], -point[1], point[2]))
    assert itk.GetPixel(there) == pytest.approx(float(volume.array[3, 2, 4]))
    agree = np.allclose(forms[0], forms[1]) and codes != (0, 0)
    if agree:
        assert not read_header(path).warnings
    elif min(codes) > 0:
        assert "sform and qform lie up to" in read_header(path).warnings[0]


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e-3), ("micron", 1e3)])
def test_another_unit_becomes_millimetres_with_a_warning(tmp_path, unit, scale):
    scaled = np.diag([scale, scale, scale, 1]) @ AFFINE
    path = write(tmp_path / "v.nii", codes=(1, 1), forms=(scaled, scaled), unit=unit)
    np.testing.assert_allclose(read_grid(path).affine, AFFINE, atol=1e-3)
    (line,) = read_header(path).warnings
    assert unit in line and "mm" in line and "ITK" in line
    again = tmp_path / "again.nii"
    save(again, image_like(VALUES, read_header(path).geometry))
    np.testing.assert_allclose(by_itk(again), AFFINE, atol=1e-3)


def test_the_warning_has_the_distance_between_the_readers(tmp_path):
    shifted = AFFINE.copy()
    shifted[2, 3] += 12.5
    path = write(tmp_path / "v.nii", codes=(4, 1), forms=(shifted, AFFINE))
    warnings = read_header(path).warnings
    assert "the qform is used" in warnings[0] and "12.5 mm" in warnings[1]


@pytest.mark.parametrize("codes", [(4, 1), (0, 0), (1, 1)])
@pytest.mark.parametrize("unit", ["mm", "meter"])
def test_a_warp_of_such_files_does_the_same_in_itk(tmp_path, codes, unit):
    forms = (AFFINE, OTHER)
    if unit == "meter":
        forms = tuple(np.diag([1e-3, 1e-3, 1e-3, 1]) @ form for form in forms)
    fixed = write(tmp_path / "f.nii", codes=codes, forms=forms, unit=unit)
    moving = write(tmp_path / "m.nii", codes=(codes[1], codes[0]), forms=forms[::-1], unit=unit)
    grid = read_grid(fixed)
    index = voxel_indices(grid)  # each voxel to the same one of the moving image, and some noise
    ends = [affine_points(g.affine, index) for g in (grid, read_grid(moving))]
    vectors = (ends[1] - ends[0]).reshape(*SHAPE, 3)
    vectors += np.random.default_rng(1).normal(0, 1, vectors.shape)
    field = Field(vectors.astype(np.float32), grid.affine)
    write_field(tmp_path / "warp.nii.gz", field)
    again = read_field(tmp_path / "warp.nii.gz")
    moved = resample(read(moving), partial(map_points, [again]), grid)
    f, m = (sitk.ReadImage(str(p), sitk.sitkFloat32) for p in (fixed, moving))
    warp = sitk.ReadImage(str(tmp_path / "warp.nii.gz"), sitk.sitkVectorFloat64)
    wanted = sitk.Resample(m, f, sitk.DisplacementFieldTransform(warp), sitk.sitkLinear, 0.0)
    wanted = sitk.GetArrayFromImage(wanted).transpose(2, 1, 0)
    inside = (wanted != 0) & (moved != 0)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(moved[inside], wanted[inside], atol=0.3)  # rounded headers


@pytest.mark.parametrize("name", ["warp.nii", "warp.nii.gz"])
def test_a_field_that_is_written_in_slices_is_the_file_of_the_whole(tmp_path, name):
    vectors = np.random.default_rng(2).normal(0, 3, (*SHAPE, 3)).astype(np.float32)
    write_field(tmp_path / name, Field(vectors, AFFINE))
    whole = Nifti1Image((vectors * np.array([-1, -1, 1], np.float32))[:, :, :, None], AFFINE)
    whole.set_sform(AFFINE, code=2)
    whole.set_qform(AFFINE, code=2)
    whole.header.set_intent("vector")
    whole.header.set_xyzt_units("mm")
    written = (tmp_path / name).read_bytes()
    content = gzip.decompress(written) if name.endswith(".gz") else written
    assert content == whole.to_bytes()


@pytest.mark.parametrize("field", ["quatern_b", "qoffset_x", "pixdim"])
def test_a_qform_that_is_not_finite_is_none_and_says_nothing(field):
    header = Nifti1Header()
    header.set_data_shape((5, 6, 7))
    header.set_qform(np.diag([2.0, 2.5, 3.0, 1.0]), code=1)
    header[field] = np.inf if field != "pixdim" else [1, np.inf, 2, 3, 1, 1, 1, 1]
    assert usable_qform(header) == (None, 0)
