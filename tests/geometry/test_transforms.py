"""Chains of affines and fields: points, one resampling, inverses, files and `apply_files`.

Oracle: SimpleITK, which reads the written files by itself. Grids are oblique, anisotropic and
left-handed.
"""

import functools
import gzip
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Image
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import (
    affine_points,
    compose,
    invert,
    jacobian_determinant,
    map_points,
    resample,
    values_at,
)
from jaxreg.io import images
from jaxreg.io.displacement_fields import read_field, write_field
from jaxreg.io.headers import read_header
from jaxreg.io.itk_transforms import write_affine
from jaxreg.registration.apply import apply_files, load_chain

SHAPE = (20, 17, 14)
SPACING_MM = (2.0, 1.5, 3.0)


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


def grid(orientation, shape=SHAPE, spacing_mm=SPACING_MM):
    """A grid around (4, -7, 11) mm: upright RAS, LAS (left-handed), oblique, or axes permuted."""
    turn = Rotation.from_euler("zx", [15, 10], degrees=True).as_matrix()
    axes = {
        "ras": np.eye(3),
        "las": np.diag([-1.0, 1.0, 1.0]),
        "oblique": turn,
        "psl": turn @ np.array([[0, 0, -1.0], [1.0, 0, 0], [0, 1.0, 0]]),
    }[orientation]
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag(spacing_mm)
    affine[:3, 3] = np.array([4.0, -7.0, 11.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


ORIENTATIONS = ["ras", "las", "oblique", "psl"]


def wave(points, amplitude_mm=1.5):
    """A smooth displacement (RAS mm) given by a formula."""
    x, y, z = np.asarray(points, np.float64).T / 9.0
    return amplitude_mm * np.stack(
        [np.sin(x + 0.3) * np.cos(z), np.cos(y - 0.5) * np.sin(z), np.sin(x + z)], axis=-1
    )


def field(orientation, displacement=wave, **kwargs):
    where = grid(orientation, **kwargs)
    return compose(lambda points: points + displacement(points), where)


def turned(degrees=12.0, shift_mm=(3.0, -4.0, 2.0), scale=1.05):
    matrix = np.eye(4)
    axis = np.array([0.5, -0.3, 0.8]) / np.linalg.norm([0.5, -0.3, 0.8])
    matrix[:3, :3] = scale * Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def image(orientation, seed=0, **kwargs):
    where = grid(orientation, **kwargs)
    array = np.random.default_rng(seed).random(where.shape).astype(np.float32)
    return Volume(array, where.affine)


def inner_points(where, margin=2.0, n=200, seed=0):
    index = np.random.default_rng(seed).uniform(margin, np.array(where.shape) - 1 - margin, (n, 3))
    return affine_points(where.affine, index)


def itk_points(transform, points):
    lps = np.array([-1.0, -1.0, 1.0])
    return np.array([transform.TransformPoint((p * lps).tolist()) for p in points]) * lps


def itk_field(path):
    image_ = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    return sitk.DisplacementFieldTransform(image_)


def written(folder, **elements):
    """Paths of the elements, written as ITK files, in their order."""
    paths = []
    for name, element in elements.items():
        is_field = isinstance(element, Field)
        paths.append(folder / (f"{name}.nii.gz" if is_field else f"{name}.mat"))
        (write_field if is_field else write_affine)(paths[-1], element)
    return paths


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_written_field_moves_points_in_simpleitk_as_here(tmp_path, orientation):
    warp = field(orientation)
    write_field(tmp_path / "warp.nii.gz", warp)
    points = inner_points(warp.grid, margin=0)
    got = map_points([warp], points)
    wanted = itk_points(itk_field(tmp_path / "warp.nii.gz"), points)
    # float32 qforms (quaternions) displace a field of 50 mm by some 1e-5 mm
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    again = read_field(tmp_path / "warp.nii.gz")
    np.testing.assert_array_equal(again.vectors, warp.vectors)
    np.testing.assert_allclose(again.affine, warp.affine, atol=1e-5)  # float32 in the header


def test_a_written_field_has_the_form_that_ants_reads(tmp_path):
    write_field(tmp_path / "warp.nii.gz", field("las"))
    header = load(tmp_path / "warp.nii.gz").header
    assert header.get_data_shape() == (*SHAPE, 1, 3)
    assert header["intent_code"] == 1007
    assert header.get_data_dtype() == np.float32


def test_a_field_does_nothing_beyond_its_grid_as_in_itk(tmp_path):
    warp = field("oblique")
    write_field(tmp_path / "warp.nii", warp)
    index = np.array([[-0.4, 3, 3], [-0.6, 3, 3], [5, 16.4, 2], [5, 16.6, 2], [5, 5, 40]])
    points = affine_points(warp.affine, index)
    moved = map_points([warp], points)
    np.testing.assert_allclose(
        moved, itk_points(itk_field(tmp_path / "warp.nii"), points), atol=1e-4
    )
    stays = np.isclose(moved, points, atol=1e-9).all(axis=1)
    np.testing.assert_array_equal(stays, [False, True, False, True, True])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_chain_is_one_resampling_and_equals_simpleitk_s(tmp_path, orientation):
    warp, matrix, moving = field(orientation), turned(), image("psl", shape=(22, 18, 19))
    reference = grid("oblique", shape=(15, 16, 12), spacing_mm=(2.1, 1.8, 2.9))
    write_field(tmp_path / "warp.nii", warp)
    write_affine(tmp_path / "affine.mat", matrix)
    images.write(tmp_path / "moving.nii", moving)
    images.write(tmp_path / "reference.nii", Volume(np.zeros(reference.shape), reference.affine))
    pull_back = functools.partial(map_points, [warp, matrix])
    labels = np.random.default_rng(1).integers(0, 9, moving.array.shape).astype(np.int16)

    for order, array in ((1, moving.array), (0, labels)):
        got = resample(Volume(array, moving.affine), pull_back, reference, order=order)
        images.write(tmp_path / "moving.nii", Volume(array, moving.affine))
        # antsApplyTransforms -t warp -t affine: fixed points meet the warp first, then the affine
        both = sitk.CompositeTransform(3)
        both.AddTransform(sitk.ReadTransform(str(tmp_path / "affine.mat")))
        both.AddTransform(itk_field(tmp_path / "warp.nii"))  # the last one added acts first
        wanted = sitk.Resample(
            sitk.ReadImage(str(tmp_path / "moving.nii")),
            sitk.ReadImage(str(tmp_path / "reference.nii")),
            both,
            sitk.sitkLinear if order else sitk.sitkNearestNeighbor,
            0.0,
        )
        difference = np.abs(sitk.GetArrayFromImage(wanted).transpose(2, 1, 0) - got.astype(float))
        assert 0.2 < (got == 0).mean() < 0.95  # part of the grid lies outside the moving image
        # Headers are float32, so a point on an edge or half-way between two voxels may fall on
        # the other side: at most one voxel in a thousand. Intensities have a range of 1.
        assert (difference > 2e-4).mean() < 1e-3


def test_resampling_onto_the_own_grid_changes_nothing():
    moving = image("oblique")
    own = Grid(moving.array.shape, moving.affine)
    np.testing.assert_allclose(resample(moving, lambda p: p, own), moving.array, atol=1e-6)


def test_values_do_not_depend_on_how_the_grid_is_cut(monkeypatch):
    warp, moving = field("las"), image("oblique")
    whole = resample(moving, functools.partial(map_points, [warp]), warp.grid)
    monkeypatch.setattr("jaxreg.geometry.transforms._CHUNK", 500)
    pieces = resample(moving, functools.partial(map_points, [warp]), warp.grid)
    np.testing.assert_array_equal(whole, pieces)
    assert whole.any()


def test_a_composed_field_replaces_its_chain():
    warp, matrix, where = field("psl"), turned(), grid("las", shape=(10, 12, 9))
    one = compose(functools.partial(map_points, [matrix, warp]), where)
    index = np.indices(where.shape).reshape(3, -1).T.astype(float)
    centres = affine_points(where.affine, index)
    # exact at the voxel centres, up to float32 of displacements of some 10 mm
    np.testing.assert_allclose(
        map_points([one], centres), map_points([matrix, warp], centres), atol=1e-5
    )


def test_affines_are_inverted_exactly():
    matrix = turned(degrees=40)
    points = inner_points(grid("ras"))
    there, residual_mm = invert([matrix])(affine_points(matrix, points))
    np.testing.assert_allclose(there, points, atol=1e-10)
    assert residual_mm.max() == 0


@pytest.mark.parametrize("orientation", ["las", "oblique"])
def test_the_inverse_of_a_chain_takes_points_back(orientation):
    chain = [field(orientation, lambda p: wave(p, 4.5)), turned(degrees=25, scale=1.1)]
    determinant = jacobian_determinant(chain[0])
    assert determinant.min() < 0.6 and determinant.max() > 1.6  # no small deformation
    points = inner_points(chain[0].grid, margin=2.5)
    back, residual_mm = invert(chain)(map_points(chain, points))
    # points stop at 1e-3 mm in the moving space; the map shrinks nothing by more than 5
    np.testing.assert_allclose(back, points, atol=5e-3)
    assert residual_mm.max() <= 1e-3


def test_the_inverse_of_a_field_that_holds_a_large_affine():
    chain = [turned(degrees=35, shift_mm=(20.0, -15.0, 9.0), scale=0.85)]
    whole = compose(functools.partial(map_points, [*chain, field("oblique")]), grid("las"))
    points = inner_points(whole.grid)
    back, residual_mm = invert([whole])(map_points([whole], points))
    np.testing.assert_allclose(back, points, atol=5e-3)
    assert residual_mm.max() <= 1e-3


def test_an_inverse_beyond_the_grid_is_continued_and_told():
    shift = field("ras", lambda p: np.full(p.shape, [5.0, 0, 0]))
    points = affine_points(shift.affine, np.array([[10.0, 8, 7], [1.0, 8, 7]]))
    back, residual_mm = invert([shift])(points)
    np.testing.assert_allclose(back, points - [5, 0, 0], atol=1e-5)
    np.testing.assert_array_equal(np.isnan(residual_mm), [False, True])


def test_the_residual_of_a_folded_field_is_told():
    folded = field("ras", lambda p: np.stack([-3 * (p[:, 0] - 4.0), 0 * p[:, 1], 0 * p[:, 2]], -1))
    folded.vectors[:10] = 0
    _, residual_mm = invert([folded])(affine_points(folded.affine, np.array([[17.0, 8, 7]])))
    assert residual_mm[0] > 1 or np.isnan(residual_mm[0])


@pytest.mark.parametrize("shape", [(7, 5, 9), (1, 4, 6), (2, 2, 2), (12, 1, 1)])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8, np.int16])
def test_trilinear_values_are_those_of_scipy(shape, kind):
    """At more points than are in work at a time, up to two voxels beyond the grid."""
    rng = np.random.default_rng(0)
    array = (rng.random((*shape, 3)) * 100).astype(kind)
    points = rng.random((20_000, 3)) * (np.array(shape) + 3) - 2
    wanted = [map_coordinates(array[..., c], points.T, float, 1, "nearest") for c in range(3)]
    within = np.all((points >= -0.5) & (points <= np.array(shape) - 0.5), axis=1)
    moved = map_points([Field(array, np.eye(4))], points) - points
    np.testing.assert_allclose(moved, np.where(within, wanted, 0).T, atol=1e-10)
    lines = Grid((len(points), 1, 1), np.eye(4))
    places = [(slice(0, len(points)), points)]
    values = values_at(array[..., 0], places, lines.shape, order=1)[:, 0, 0]
    np.testing.assert_allclose(values, np.where(within, wanted[0], 0), rtol=1e-6)


def test_a_point_that_is_no_number_has_no_value():
    array = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    points = np.array([[1.0, 1, 1], [np.nan, 1, 1]])
    moved = map_points([Field(np.stack([array] * 3, -1), np.eye(4))], points)
    assert moved[0].tolist() == [14.0, 14.0, 14.0]
    assert np.isnan(moved[1, 0])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_jacobian_of_an_affine_map_is_its_determinant(orientation):
    matrix = turned(degrees=30, scale=1.2)
    warp = compose(functools.partial(affine_points, matrix), grid(orientation))
    # float32 displacements of 20 mm (1e-6) over voxels of 1.5 mm
    np.testing.assert_allclose(jacobian_determinant(warp), 1.2**3, rtol=1e-5)


def test_jacobian_of_a_smooth_field_is_the_analytic_one():
    where = grid("oblique", shape=(30, 30, 30), spacing_mm=(0.5, 0.4, 0.6))
    warp = compose(lambda p: p + wave(p), where)
    points = affine_points(where.affine, np.indices(where.shape).reshape(3, -1).T.astype(float))
    step = 1e-5
    columns = [(wave(points + e) - wave(points - e)) / (2 * step) for e in step * np.eye(3)]
    wanted = np.linalg.det(np.eye(3) + np.stack(columns, axis=-1)).reshape(where.shape)
    inner = (slice(1, -1),) * 3
    # central differences: (h/9)² / 6 · 1.5/9 < 2e-4 a derivative; det is up to 2
    np.testing.assert_allclose(jacobian_determinant(warp)[inner], wanted[inner], atol=2e-3)
    assert wanted.max() - wanted.min() > 0.1


def test_files_are_named_in_the_order_of_ants(tmp_path):
    warp, matrix = field("las"), turned()
    chain = load_chain(written(tmp_path, warp=warp, affine=matrix))
    points = inner_points(warp.grid)
    wanted = affine_points(matrix, map_points([warp], points))
    np.testing.assert_allclose(map_points(chain, points), wanted, atol=1e-4)
    other = load_chain(written(tmp_path, affine=matrix, warp=warp))
    assert np.abs(map_points(other, points) - wanted).max() > 0.1


def test_a_composite_h5_is_a_chain_in_itk_s_order(tmp_path):
    warp, matrix = field("oblique"), turned()
    write_field(tmp_path / "warp.nii", warp)
    write_affine(tmp_path / "affine.mat", matrix)
    both = sitk.CompositeTransform(3)
    both.AddTransform(sitk.ReadTransform(str(tmp_path / "affine.mat")))
    both.AddTransform(itk_field(tmp_path / "warp.nii"))
    sitk.WriteTransform(both, str(tmp_path / "both.h5"))
    points = inner_points(warp.grid)
    got = map_points(load_chain([tmp_path / "both.h5"]), points)
    np.testing.assert_allclose(got, itk_points(both, points), atol=1e-4)


def apply_setup(folder):
    """An image on an LAS grid, a reference stored PSL, and a warp and an affine on files."""
    moving = image("las", shape=(22, 18, 19))
    reference = grid("psl", shape=(12, 14, 10))
    images.write(folder / "moving.nii.gz", moving)
    images.write(
        folder / "labels.nii.gz",
        Volume((np.rint(moving.array * 3) * 200).astype(np.int16), moving.affine),
    )
    images.write(folder / "reference.nii.gz", Volume(np.zeros(reference.shape), reference.affine))
    warp, matrix = field("oblique"), turned()
    return moving, reference, warp, matrix, written(folder, warp=warp, affine=matrix)


def test_apply_moves_image_and_labels_onto_the_stored_reference_grid(tmp_path):
    moving, reference, warp, matrix, paths = apply_setup(tmp_path)
    pull_back = functools.partial(map_points, [warp, matrix])
    for kind, order in (("image", 1), ("labels", 0)):
        name = {"image": "moving", "labels": "labels"}[kind]
        lines = apply_files(
            paths,
            **{kind: tmp_path / f"{name}.nii.gz"},
            reference=tmp_path / "reference.nii.gz",
            out=tmp_path / "out.nii.gz",
        )
        assert lines == []
        got = load(tmp_path / "out.nii.gz")
        np.testing.assert_allclose(got.affine, reference.affine, atol=1e-5)
        array = moving.array if order else (np.rint(moving.array * 3) * 200).astype(np.int16)
        wanted = resample(Volume(array, moving.affine), pull_back, reference, order=order)
        same = np.isclose(np.asarray(got.dataobj), wanted, atol=1e-4)
        assert same.mean() > 0.999 and wanted.any()  # float32 headers: ties, see above
    assert load(tmp_path / "out.nii.gz").get_data_dtype() == np.int16


def test_points_go_where_the_image_goes(tmp_path):
    shift = np.eye(4)
    shift[0, 3] = 6.0  # fixed x + 6 = moving x: the image goes 6 mm to the left
    moving = Volume(np.zeros((20, 10, 10), np.float32), np.diag([2.0, 2, 2, 1]))
    moving.array[12, 5, 5] = 1
    moving.array[0, 0, 0] = 1e-3
    images.write(tmp_path / "moving.nii", moving)
    write_affine(tmp_path / "a.tfm", shift)
    (tmp_path / "p.csv").write_text("x,y,z,name\n24,10,10,marked\n")
    apply_files(
        [tmp_path / "a.tfm"],
        image=tmp_path / "moving.nii",
        reference=tmp_path / "moving.nii",
        out=tmp_path / "moved.nii",
    )
    moved = images.read(tmp_path / "moved.nii")
    assert np.argmax(moved.array) == np.ravel_multi_index((9, 5, 5), moved.array.shape)
    apply_files([tmp_path / "a.tfm"], points=tmp_path / "p.csv", out=tmp_path / "q.csv")
    assert (tmp_path / "q.csv").read_text().splitlines()[0] == "x,y,z,name"
    first = (tmp_path / "q.csv").read_text().splitlines()[1]
    assert first == "18.000000,10.000000,10.000000,marked"
    (tmp_path / "named.csv").write_text('name,Z,x,y,note\nmarked,10,24,10,"a, b"\n')
    apply_files([tmp_path / "a.tfm"], points=tmp_path / "named.csv", out=tmp_path / "r.csv")
    named = (tmp_path / "r.csv").read_text().splitlines()
    assert named == ["name,Z,x,y,note", 'marked,10.000000,18.000000,10.000000,"a, b"']
    apply_files(
        [tmp_path / "a.tfm"], points=tmp_path / "q.csv", out=tmp_path / "p2.csv", inverse=True
    )
    assert "24.000000,10.000000,10.000000" in (tmp_path / "p2.csv").read_text()


def test_points_through_a_field_and_back(tmp_path):
    _, _, warp, matrix, paths = apply_setup(tmp_path)
    points = inner_points(warp.grid, margin=3)
    rows = "\n".join(",".join(f"{v:.6f}" for v in p) for p in points)
    (tmp_path / "fixed.csv").write_text(f"x,y,z\n{rows}\n")
    there, back = tmp_path / "moving.csv", tmp_path / "back.csv"
    assert apply_files(paths, points=tmp_path / "fixed.csv", out=there, inverse=True) == []
    got = np.loadtxt(there, delimiter=",", skiprows=1)
    np.testing.assert_allclose(got, map_points([warp, matrix], points), atol=1e-4)
    (line,) = apply_files(paths, points=there, out=back)
    assert "residual at most 0.00" in line
    np.testing.assert_allclose(np.loadtxt(back, delimiter=",", skiprows=1), points, atol=5e-3)


def test_inverse_of_an_image_is_the_image_on_the_other_grid(tmp_path):
    moving, _, _, _, _ = apply_setup(tmp_path)
    small = field("las", lambda p: wave(p, 1.2), shape=(26, 24, 22))
    (path,) = written(tmp_path, small=small)
    smooth = Volume(
        np.sin(np.indices(moving.array.shape).sum(axis=0) / 3).astype(np.float32), moving.affine
    )
    images.write(tmp_path / "smooth.nii", smooth)
    files = {"reference": tmp_path / "smooth.nii"}
    apply_files([path], image=tmp_path / "smooth.nii", out=tmp_path / "there.nii", **files)
    lines = apply_files(
        [path], image=tmp_path / "there.nii", out=tmp_path / "back.nii", inverse=True, **files
    )
    assert "the image and the reference lie on one grid" in lines[0]  # here on purpose
    assert lines[1].startswith("inverse of the field: residual at most 0.00")
    inner = (slice(3, -3),) * 3
    back = images.read(tmp_path / "back.nii").array[inner]
    wanted = images.read(tmp_path / "smooth.nii").array[inner]
    there = images.read(tmp_path / "there.nii").array[inner]
    # twice linear interpolation of sin(i/3 + j/3 + k/3): three axes' (1/3)²/8 each time
    assert np.abs(back - wanted).max() < 0.085
    assert np.abs(there - wanted).max() > 0.2


def bad_calls(folder):
    _, _, _, _, (warp, affine) = apply_setup(folder)
    (folder / "no.csv").write_text("a,b,c\n1,2,3\n")
    (folder / "nan.csv").write_text("x,y,z\n1,2,nan\n")
    (folder / "short.csv").write_text("x,y,z\n1,2\n")
    (folder / "p.csv").write_text("x,y,z\n1,2,3\n")
    (folder / "flirt.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (folder / "t.foo").write_text("?")
    data = gzip.decompress(warp.read_bytes())
    (folder / "cut.nii").write_bytes(data[: len(data) // 2])
    like = {"reference": folder / "reference.nii.gz", "out": folder / "o.nii.gz"}
    moving = {"image": folder / "moving.nii.gz"}
    return {
        "no transform": ([], moving | like, "at least one"),
        "missing": ([folder / "none.mat"], moving | like, "none.mat: no such file"),
        "missing field": ([folder / "none.nii"], moving | like, "none.nii: no such file"),
        "suffix": ([folder / "t.foo"], moving | like, "t.foo: expected a transform"),
        "flirt": ([folder / "flirt.mat"], moving | like, "flirt.mat: not readable as an ITK"),
        "image as field": (
            [folder / "moving.nii.gz"],
            moving | like,
            "expected an ITK displacement",
        ),
        "cut field": ([folder / "cut.nii"], moving | like, "cut.nii: not readable"),
        "two": ([warp], moving | like | {"points": folder / "p.csv"}, "expected one of --image"),
        "none": ([warp], like, "expected one of --image"),
        "no reference": ([warp], moving | {"out": folder / "o.nii"}, "--reference: expected"),
        "reference for points": ([warp], like | {"points": folder / "p.csv"}, "points need none"),
        "header": ([warp], {"points": folder / "no.csv", "out": folder / "o.csv"}, "header x,y,z"),
        "nan": ([warp], {"points": folder / "nan.csv", "out": folder / "o.csv"}, "finite number"),
        "short": ([warp], {"points": folder / "short.csv", "out": folder / "o.csv"}, "3 cells"),
        "out suffix": ([warp], moving | like | {"out": folder / "o.mgz"}, "ends in .nii"),
        "out is input": ([warp], moving | like | {"out": folder / "moving.nii.gz"}, "no input"),
        "no folder": ([affine], moving | like | {"out": folder / "x" / "o.nii"}, "does not exist"),
    }


def test_bad_input_is_one_line_and_writes_nothing(tmp_path):
    calls = bad_calls(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    for transforms, options, message in calls.values():
        with pytest.raises(InputError, match=message) as error:
            apply_files(transforms, **options)
        assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_sheared_grid_is_refused_for_an_itk_field(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.1
    with pytest.raises(InputError, match="orthogonal axes"):
        write_field(tmp_path / "w.nii", Field(np.zeros((3, 4, 5, 3), np.float32), affine))


def test_the_header_of_the_reference_is_kept(tmp_path):
    where = grid("oblique")
    like = Nifti1Image(np.zeros(where.shape, np.float32), where.affine)
    like.set_sform(where.affine, code=4)
    like.set_qform(where.affine, code=1)
    images.save(tmp_path / "like.nii", like)
    geometry = read_header(tmp_path / "like.nii").geometry
    images.write_like(tmp_path / "out.nii", np.ones(where.shape, np.uint8), geometry)
    header = load(tmp_path / "out.nii").header
    assert (header["sform_code"], header["qform_code"]) == (4, 1)
    np.testing.assert_array_equal(header.get_sform(), like.header.get_sform())
    assert header.get_data_dtype() == np.uint8
