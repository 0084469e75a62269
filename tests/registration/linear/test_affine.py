"""Rigid and affine alignment, and ITK affine files.

Oracles: motions that are known because the data were moved by them, and SimpleITK's reading of the
written files.
"""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from jaxreg.data.synthetic.phantom import phantom_subject
from jaxreg.data.synthetic.simulate import centred_affine
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import affine_points, map_points, resample
from jaxreg.io.itk_transforms import read_transform, write_affine
from jaxreg.registration.linear.affine import check_overlap, register_affine

SHAPE, SPACING_MM = (44, 52, 44), 4.0
LPS = np.array([-1.0, -1.0, 1.0])


def motion(degrees, shift_mm, scale=1.0, axis=(0.6, -0.4, 0.7)):
    """A rotation, scaling and shift about the origin (RAS mm)."""
    matrix = np.eye(4)
    axis = np.asarray(axis) / np.linalg.norm(axis)
    matrix[:3, :3] = scale * Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix()
    direction = np.array([0.5, 0.7, -0.5])
    matrix[:3, 3] = shift_mm * direction / np.linalg.norm(direction)
    return matrix


@pytest.fixture(scope="module")
def subject():
    return phantom_subject(1, shape=SHAPE, spacing_mm=SPACING_MM)


def phantom_pair(subject, wanted):
    """(fixed T1w, moving T2w, their masks); `wanted` takes fixed points to moving points.

    The moving data are re-sampled onto an upright grid of other spacing, size and place.
    """
    affine = centred_affine(SHAPE, SPACING_MM)
    mask = subject.labels > 0
    grid = Grid((54, 58, 60), np.diag([4.4, 4.2, 3.8, 1.0]))
    grid.affine[:3, 3] = wanted[:3, 3] - grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2)
    moving, moving_mask = (
        resample(Volume(array, wanted @ affine), lambda p: p, grid, order=order)
        for array, order in ((subject.images["T2w"], 1), (mask.astype(np.uint8), 0))
    )
    return (
        Volume(subject.images["T1w"], affine),
        Volume(moving, grid.affine),
        {"fixed_mask": mask, "moving_mask": moving_mask > 0},
    )


def mean_error_mm(got, wanted, fixed, mask):
    points = affine_points(fixed.affine, np.argwhere(mask).astype(float))
    return np.linalg.norm(affine_points(got, points) - affine_points(wanted, points), axis=1).mean()


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
def test_affine_finds_a_rotation_shift_and_scaling_between_contrasts(subject, masked):
    wanted = motion(20, 30, scale=1.1)
    fixed, moving, masks = phantom_pair(subject, wanted)
    got = register_affine(fixed, moving, **(masks if masked else {}))
    assert got.dtype == np.float64
    # half a voxel of 4 mm; 0.5 mm is usual
    assert mean_error_mm(got, wanted, fixed, masks["fixed_mask"]) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("axis", [(1, 0.2, 0.1), (0.2, 0.1, -1)])
def test_rigid_finds_a_rotation_of_40_degrees(subject, axis):
    wanted = motion(40, 40, axis=axis)
    fixed, moving, masks = phantom_pair(subject, wanted)
    got = register_affine(fixed, moving, mode="rigid", **masks)
    assert mean_error_mm(got, wanted, fixed, masks["fixed_mask"]) < 2.0
    # rigid: the rotation is one, with no scale
    np.testing.assert_allclose(got[:3, :3] @ got[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(got[:3, :3]) > 0


@pytest.mark.slow
def test_a_rigid_answer_is_exact_to_a_fraction_of_a_millimetre():
    shape, spacing_mm = (80, 96, 80), 2.0
    subject = phantom_subject(3, shape=shape, spacing_mm=spacing_mm)
    affine = centred_affine(shape, spacing_mm)
    fixed, mask = Volume(subject.images["T1w"], affine), subject.labels > 0
    wanted = motion(9, 7)
    grid = Grid((84, 100, 86), np.diag([1.9, 2.1, 2.0, 1.0]))
    grid.affine[:3, 3] = wanted[:3, 3] - grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2)
    moving, moving_mask = (
        Volume(resample(Volume(a, wanted @ affine), lambda p: p, grid, order=order), grid.affine)
        for a, order in ((subject.images["T2w"], 1), (mask.astype(np.uint8), 0))
    )
    masks = {"fixed_mask": mask, "moving_mask": moving_mask.array > 0}
    start, answer = (
        register_affine(fixed, moving, mode="rigid", fine=fine, **masks) for fine in (False, True)
    )
    before, after = (mean_error_mm(m, wanted, fixed, mask) for m in (start, answer))
    assert after < 0.15 and after < before
    np.testing.assert_allclose(answer[:3, :3] @ answer[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.slow
def test_the_same_bytes_twice(subject):
    fixed, moving, masks = phantom_pair(subject, motion(10, 10))
    first, second = (register_affine(fixed, moving, **masks).tobytes() for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_ignored_voxels_do_not_count(subject):
    fixed, moving, masks = phantom_pair(subject, motion(10, 10))
    lesion = np.zeros(fixed.array.shape, bool)
    lesion[10:30, 30:46, 20:38] = True
    harmed = Volume(np.where(lesion, np.float32(1.0), fixed.array), fixed.affine)
    results = [
        register_affine(
            image, moving, mode="rigid", fixed_ignore=lesion, fixed_mask=masks["fixed_mask"]
        )
        for image in (fixed, harmed)
    ]
    # The start (centre of mass) and the 99.5th percentile still see the lesion.
    error = [mean_error_mm(r, motion(10, 10), fixed, masks["fixed_mask"]) for r in results]
    assert max(error) < 2.0


def test_none_is_the_identity_and_com_joins_the_centres(subject):
    wanted = motion(0, 25)
    fixed, moving, masks = phantom_pair(subject, wanted)
    np.testing.assert_array_equal(register_affine(fixed, moving, mode="none"), np.eye(4))
    got = register_affine(fixed, moving, mode="com", **masks)
    np.testing.assert_array_equal(got[:3, :3], np.eye(3))
    # other contrasts have other centres of mass: some millimetres apart in the phantom
    np.testing.assert_allclose(got[:3, 3], wanted[:3, 3], atol=4.0)
    same = Volume(fixed.array, wanted @ fixed.affine)
    exact = register_affine(fixed, same, mode="com")
    np.testing.assert_allclose(exact, wanted, atol=1e-6)


def test_fields_of_view_that_do_not_meet_are_refused(subject):
    fixed = Volume(subject.images["T1w"], centred_affine(SHAPE, SPACING_MM))
    for x, meets in ((170.0, True), (180.0, False)):  # 44 voxels of 4 mm: 176 mm
        shift = np.eye(4)
        shift[0, 3] = x
        away = Volume(fixed.array, shift @ fixed.affine)
        if meets:
            check_overlap(fixed, away)
            continue
        for mode in ("none", "com", "rigid", "affine"):
            with pytest.raises(InputError, match="do not overlap") as error:
                register_affine(fixed, away, mode=mode)
            assert "\n" not in str(error.value)


def test_a_small_field_of_view_inside_a_large_one_overlaps():
    large = Volume(np.ones((100, 100, 100), np.uint8), np.diag([4.0, 4, 4, 1]))
    small = Volume(np.ones((3, 3, 3), np.uint8), np.eye(4))
    small.affine[:3, 3] = 201.0
    check_overlap(large, small)
    check_overlap(small, large)


def test_bad_input_is_one_line(subject):
    fixed = Volume(subject.images["T1w"], centred_affine(SHAPE, SPACING_MM))
    empty = np.zeros(SHAPE, bool)
    calls = [
        ({"mode": "syn"}, "--init: expected one of none, com, rigid, affine"),
        ({"fixed_mask": empty}, "fixed mask: expected a brain"),
        ({"moving_mask": np.ones((2, 3, 4), bool)}, "moving mask: expected shape"),
        ({"fixed_ignore": np.ones((2, 3, 4), bool)}, "fixed ignore mask: expected shape"),
        ({"fixed_ignore": ~empty}, "expected voxels that count"),
    ]
    for options, message in calls:
        with pytest.raises(InputError, match=message) as error:
            register_affine(fixed, fixed, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="nothing but background"):
        register_affine(Volume(np.zeros(SHAPE, np.float32), fixed.affine), fixed)


@pytest.mark.parametrize("suffix", [".mat", ".tfm", ".txt"])
def test_a_written_affine_moves_points_in_simpleitk_as_here(tmp_path, suffix):
    wanted = motion(33, 50, scale=1.2)
    wanted[0, 1] += 0.1  # a shear too
    path = tmp_path / f"affine{suffix}"
    write_affine(path, wanted)
    points = np.random.default_rng(0).uniform(-90, 90, (20, 3))
    transform = sitk.ReadTransform(str(path))
    assert transform.GetName() == "AffineTransform"
    got = [transform.TransformPoint((p * LPS).tolist()) for p in points]
    # .mat and .tfm hold float64, printed or binary
    np.testing.assert_allclose(np.array(got) * LPS, affine_points(wanted, points), atol=1e-9)
    (again,) = read_transform(path)
    np.testing.assert_allclose(again, wanted, atol=1e-10)


def test_any_linear_itk_transform_is_read_whatever_its_centre(tmp_path):
    points = np.random.default_rng(0).uniform(-90, 90, (20, 3))
    euler = sitk.Euler3DTransform((12.0, -30.0, 7.0), 0.2, -0.1, 0.4, (5.0, 6.0, -8.0))
    similarity = sitk.Similarity3DTransform()
    similarity.SetCenter((-20.0, 15.0, 40.0))
    similarity.SetScale(1.3)
    translation = sitk.TranslationTransform(3, (1.0, 2.0, 3.0))
    for transform in (euler, similarity, translation):
        sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
        (matrix,) = read_transform(tmp_path / "t.tfm")
        wanted = [transform.TransformPoint((p * LPS).tolist()) for p in points]
        got = map_points([matrix], points)
        np.testing.assert_allclose(got, np.array(wanted) * LPS, atol=1e-9)


def test_what_is_no_usable_transform_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.tfm").write_text("no transform")
    (tmp_path / "empty.mat").write_bytes(b"")
    write_affine(tmp_path / "huge.mat", np.eye(4))
    data = bytearray((tmp_path / "huge.mat").read_bytes())
    data[4:8] = b"\xff\xff\xff\x7f"  # two thousand million rows, for which ITK reserves memory
    (tmp_path / "huge.mat").write_bytes(data)
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "flat.tfm"))
    spline = sitk.BSplineTransform(3)
    spline.SetTransformDomainMeshSize((2, 2, 2))
    sitk.WriteTransform(spline, str(tmp_path / "spline.tfm"))
    singular = np.diag([1.0, 1.0, 0.0, 1.0])
    text = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    values = " ".join(str(v) for v in [*singular[:3, :3].ravel(), 0, 0, 0])
    (tmp_path / "singular.tfm").write_text(f"{text}Parameters: {values}\nFixedParameters: 0 0 0\n")
    cases = {
        "none.mat": "no such file",
        "text.tfm": "not readable as an ITK transform",
        "empty.mat": "not readable as an ITK transform",
        "huge.mat": "not readable as an ITK transform",
        "flat.tfm": "expected a 3-D transform",
        "spline.tfm": "expected affines or displacement fields",
        "singular.tfm": "",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=f"{name}: .*{message}") as error:
            read_transform(tmp_path / name)
        assert "\n" not in str(error.value)
