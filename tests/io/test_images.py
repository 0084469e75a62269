"""Volumes: orientation, round trips, resampling, intensities, and files that are not what they say.

Oracles: affines composed by hand, SimpleITK for physical points, block means.
"""

import gzip
import io
import itertools
import os
import tarfile
import warnings
import zipfile
from typing import Any

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.imageglobals import logger
from nibabel.nifti1 import Nifti1Extension, Nifti1Image
from PIL import Image

from jaxreg.data.intensities import normalize
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Volume, coarser_grid
from jaxreg.io import images
from jaxreg.io.stored_images import quiet

SHAPE = (4, 5, 6)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), *[(False, True)] * 3))


def oblique_affine(spacing_mm=(2.0, 1.5, 3.0)):
    """Nearest to RAS, turned by 15 and 10 degrees; shift and voxel sizes differ along the axes."""
    (a, b), (c, s) = np.deg2rad([15, 10]), (np.cos, np.sin)
    about_z = np.array([[c(a), -s(a), 0], [s(a), c(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c(b), -s(b)], [0, s(b), c(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing_mm)
    affine[:3, 3] = -31.0, 12.5, 7.25
    return affine


def random_volume(shape=SHAPE, spacing_mm=(2.0, 1.5, 3.0), seed=0):
    array = np.random.default_rng(seed).random(shape).astype(np.float32)
    return Volume(array, oblique_affine(spacing_mm))


def saved(path, array, affine=None, **kwargs):
    image = Nifti1Image(array, oblique_affine() if affine is None else affine, **kwargs)
    nib.save(image, path)  # pyright: ignore[reportPrivateImportUsage]
    return path


def grid_corner(value):
    return value.affine @ [-0.5, -0.5, -0.5, 1]


def mgh(value):
    """A volume as an MGH image."""
    image: Any = nib.MGHImage  # pyright: ignore[reportPrivateImportUsage]
    return image(value.array, value.affine)


@pytest.mark.parametrize(("axes", "x", "y", "z"), ORIENTATIONS)
def test_any_orientation_reads_to_ras_with_a_marked_voxel_in_place(tmp_path, axes, x, y, z):
    wanted = random_volume()
    wanted.array[1, 3, 2] = 9
    stored_to_ras, flips = np.zeros((4, 4)), (x, y, z)
    stored_to_ras[3, 3] = 1
    for k, (axis, flipped) in enumerate(zip(axes, flips, strict=True)):
        stored_to_ras[axis, k] = -1 if flipped else 1
        stored_to_ras[axis, 3] = SHAPE[axis] - 1 if flipped else 0
    stored = wanted.array.transpose(axes)
    stored = stored[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    affine = wanted.affine @ stored_to_ras

    got = images.read(saved(tmp_path / "v.nii.gz", stored, affine))

    np.testing.assert_array_equal(got.array, wanted.array)
    np.testing.assert_allclose(got.affine, wanted.affine, atol=1e-5)  # float32 in the header
    marked = np.argwhere(got.array == 9)[0]
    before = affine @ [*np.argwhere(stored == 9)[0], 1]
    np.testing.assert_allclose(got.affine @ [*marked, 1], before, atol=1e-4)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_write_then_read_is_the_identity(tmp_path, name, dtype):
    array = np.arange(120).reshape(SHAPE).astype(dtype)
    images.write(tmp_path / name, Volume(array, oblique_affine()))
    got = images.read(tmp_path / name)
    np.testing.assert_array_equal(got.array, array)
    assert got.array.dtype == dtype
    np.testing.assert_allclose(got.affine, oblique_affine(), atol=1e-5)  # float32 in the header
    np.testing.assert_allclose(got.spacing_mm, (2.0, 1.5, 3.0), rtol=1e-6)


def test_the_same_volume_is_written_as_the_same_bytes(tmp_path):
    for name in ("one.nii.gz", "other.nii.gz"):
        images.write(tmp_path / name, random_volume())
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "other.nii.gz").read_bytes()


def test_header_scaling_is_applied(tmp_path):
    image = Nifti1Image(np.arange(120).reshape(SHAPE).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    data = bytearray(image.to_bytes())
    data[112:120] = np.array([0.5, 3], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "v.nii").write_bytes(data)
    got = images.read_image(tmp_path / "v.nii").array
    np.testing.assert_allclose(got, np.arange(120).reshape(SHAPE) * 0.5 + 3)


def test_mgz_reads_like_nifti(tmp_path):
    wanted = random_volume()
    image = mgh(wanted)
    nib.save(image, tmp_path / "v.mgz")  # pyright: ignore[reportPrivateImportUsage]
    got = images.read(tmp_path / "v.mgz")
    np.testing.assert_array_equal(got.array, wanted.array)
    np.testing.assert_allclose(got.affine, wanted.affine, atol=1e-4)


def test_simpleitk_sees_the_same_values_at_the_same_points(tmp_path):
    value = random_volume()
    images.write(tmp_path / "v.nii.gz", value)
    image = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), value.array)
    np.testing.assert_allclose(image.GetSpacing(), value.spacing_mm, rtol=1e-6)
    for index in [(0, 0, 0), (3, 0, 5), (1, 4, 2)]:
        lps = np.asarray(image.TransformIndexToPhysicalPoint(index))
        ras = (value.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(lps * [-1, -1, 1], ras, atol=1e-4)  # float32 in the header


def test_resampling_2_to_4_mm_is_the_block_mean():
    value = random_volume((8, 6, 4), (2.0, 2.0, 2.0))
    got = resampling.resample(value, 4.0)
    blocks = value.array.reshape(4, 2, 3, 2, 2, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(got.array, blocks, rtol=1e-5)
    assert got.array.dtype == np.float32


@pytest.mark.parametrize("spacing_mm", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("labels", [False, True])
def test_resampling_keeps_the_grid_corner_and_the_field_of_view(spacing_mm, labels):
    value = random_volume((9, 7, 5))
    got = resampling.resample(value, spacing_mm, labels=labels)
    assert (got.array.shape, got.spacing_mm) == (
        coarser_grid(value, spacing_mm)[0],
        pytest.approx((spacing_mm,) * 3),
    )
    np.testing.assert_allclose(grid_corner(got), grid_corner(value), atol=1e-9)
    extent = np.multiply(value.array.shape, value.spacing_mm)
    covered = np.multiply(got.array.shape, spacing_mm)
    assert (covered >= extent - 1e-6).all() and (covered < extent + spacing_mm).all()


def test_uneven_sizes_average_what_the_last_voxel_covers():
    value = random_volume((5, 4, 3), (2.0, 2.0, 2.0))
    got = resampling.resample(value, 4.0).array
    assert got.shape == (3, 2, 2)
    np.testing.assert_allclose(got[2, 1, 1], value.array[4:, 2:, 2:].mean(), rtol=1e-5)
    np.testing.assert_allclose(got[0, 0, 1], value.array[:2, :2, 2:].mean(), rtol=1e-5)


def test_resampling_at_the_own_spacing_is_the_identity():
    value = random_volume(spacing_mm=(2.0, 2.0, 2.0))
    got = resampling.resample(value, 2.0)
    np.testing.assert_allclose(got.array, value.array, rtol=1e-6)
    np.testing.assert_allclose(got.affine, value.affine, atol=1e-12)


@pytest.mark.parametrize("spacing_mm", [1.0, 3.0, 4.0])
def test_labels_take_the_nearest_voxel_and_invent_none(spacing_mm):
    array = np.random.default_rng(1).integers(0, 50, (7, 6, 5)).astype(np.int32)
    value = Volume(array, oblique_affine((2.0, 2.0, 2.0)))
    got = resampling.resample(value, spacing_mm, labels=True)
    assert got.array.dtype == np.int32
    to_old = np.linalg.inv(value.affine) @ got.affine
    for index in np.ndindex(got.array.shape):
        at = np.clip((to_old @ [*index, 1])[:3], 0, np.array(array.shape) - 1)
        ends = [np.rint(at + e).astype(int).tolist() for e in (-1e-6, 1e-6)]  # ties: either
        nearest = itertools.product(*zip(*ends, strict=True))
        assert int(got.array[index]) in {int(array[n]) for n in nearest}


def test_up_sampling_is_linear_between_the_centres():
    value = Volume(np.zeros((5, 6, 4), np.float32), oblique_affine((4.0, 4.0, 4.0)))
    ramp = np.indices(value.array.shape).astype(np.float32)
    value = value._replace(array=2 * ramp[0] - ramp[1] + 0.5 * ramp[2])
    got = resampling.resample(value, 2.0)
    at = (np.indices(got.array.shape) + 0.5) / 2 - 0.5
    at = np.stack([np.clip(a, 0, n - 1) for a, n in zip(at, value.array.shape, strict=True)])
    np.testing.assert_allclose(got.array, 2 * at[0] - at[1] + 0.5 * at[2], atol=1e-5)


@pytest.mark.parametrize("shift", [0, -300, 1000])
def test_normalized_intensities_lie_in_0_1_with_background_0(shift):
    rng = np.random.default_rng(2)
    image = (rng.gamma(3, 100, (12, 12, 12)) + shift).astype(np.float32)
    mask = rng.random(image.shape) < 0.6
    got = normalize(image, mask)
    assert got.dtype == np.float32 and got.min() == 0 and got.max() == 1
    assert not got[~mask].any()
    low, high = np.percentile(image[mask], (0.1, 99.5))
    wanted = np.clip((image - min(low, 0)) / (high - min(low, 0)), 0, 1)
    np.testing.assert_allclose(got[mask], wanted[mask], atol=1e-6)


def test_normalize_ignores_what_lies_outside_the_mask():
    image = np.random.default_rng(3).random((8, 8, 8)).astype(np.float32)
    mask = np.zeros(image.shape, bool)
    mask[2:6, 2:6, 2:6] = True
    outlier = np.where(mask, image, 1e6).astype(np.float32)
    np.testing.assert_array_equal(normalize(outlier, mask), normalize(image, mask))


def test_normalize_is_invariant_to_gain_and_robust_to_one_bright_voxel():
    image = np.random.default_rng(4).random((10, 10, 10)).astype(np.float32)
    mask = np.ones(image.shape, bool)
    wanted = normalize(image, mask)
    np.testing.assert_allclose(normalize(image * 700, mask), wanted, atol=1e-6)
    image[5, 5, 5] = 1e4
    assert np.abs(normalize(image, mask) - wanted)[image < 1].max() < 0.01


def test_an_empty_mask_gives_zeros():
    image = np.ones((3, 3, 3), np.float32)
    assert not normalize(image, np.zeros(image.shape, bool)).any()


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, np.uint8), (256, np.int16), (32768, np.uint16), (65536, np.int32)]
)
def test_labels_are_written_in_the_smallest_type(largest, dtype):
    got = images.smallest_labels(np.full((2, 2, 2), largest, np.int32))
    assert got.dtype == dtype and (got == largest).all()


def refuses(path, *, read=images.read_image, match="v|absent"):
    with pytest.raises(InputError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.nii.gz", "absent.mgz", "folder/absent.nii"])
def test_a_missing_file_is_refused(tmp_path, name):
    refuses(tmp_path / name, match="no such file")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "v.nii.gz").mkdir()
    refuses(tmp_path / "v.nii.gz")


@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii", "v.mgz", "v.txt"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    refuses(tmp_path / name, match="the file is empty")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii", "v.mgz"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("JPEG", "a JPEG picture"),
        ("PNG", "a PNG picture"),
        ("tar", "a tar archive"),
        ("zip", "a ZIP archive"),
        ("lfs", "git lfs pull"),
    ],
)
def test_a_file_of_another_kind_is_named_by_its_first_bytes(tmp_path, kind, said, name, packed):
    (tmp_path / "inside.txt").write_text("text\n" * 400)
    stream = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.add(tmp_path / "inside.txt")
    elif kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            archive.write(tmp_path / "inside.txt")
    elif kind == "lfs":
        stream.write(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    else:
        noise = np.random.default_rng(0).integers(0, 255, (60, 60), dtype=np.uint8)
        Image.fromarray(noise).save(stream, format=kind)
    data = stream.getvalue()
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    refuses(tmp_path / name, match=f"no NIfTI or MGZ file: it begins like .*{said}")


@pytest.mark.parametrize("kept", [1, 8, 20, 100, 0.3, 0.6, 0.9, -9, -1])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz"])
def test_a_truncated_file_is_refused(tmp_path, kept, suffix):
    value = random_volume((10, 10, 10))
    path = tmp_path / f"v{suffix}"
    if suffix == ".mgz":
        image = mgh(value)
        nib.save(image, path)  # pyright: ignore[reportPrivateImportUsage]
    else:
        images.write(path, value)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    refuses(path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii", "v.mgz"])
def test_random_bytes_are_refused(tmp_path, name, seed):
    (tmp_path / name).write_bytes(np.random.default_rng(seed).bytes(2000))
    refuses(tmp_path / name)


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_header_is_refused_or_read_but_never_a_traceback(tmp_path, seed, capfd):
    rng = np.random.default_rng(seed)
    intact = Nifti1Image(random_volume().array, oblique_affine()).to_bytes()
    for _ in range(100):
        data = bytearray(intact)
        for place in rng.integers(0, 348, 6):
            data[place] = rng.integers(256)
        (tmp_path / "v.nii").write_bytes(data)
        with np.errstate(all="ignore"):
            try:
                images.read_image(tmp_path / "v.nii")
            except InputError as error:
                assert str(tmp_path / "v.nii") in str(error)
    capfd.readouterr()


def test_an_extension_of_an_odd_size_is_no_remark(tmp_path):
    """Nibabel warns of it; the voxels lie where the header says all the same."""
    image = Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4))
    image.header.extensions.append(Nifti1Extension(6, b"a note of some length, 40 bytes"))
    path = tmp_path / "image.nii"
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    assert int.from_bytes(data[352:356], "little") % 16 == 0
    data[352] -= 3
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="not a multiple of 16"):
        nib.load(path)
    np.testing.assert_array_equal(images.read(path).array, image.get_fdata())


@pytest.mark.parametrize("shape", [(4, 5, 6, 2), (4, 5, 6, 2, 1), (4, 5), (4, 5, 6, 1, 3)])
def test_a_volume_that_is_not_3d_is_refused(tmp_path, shape):
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    refuses(saved(tmp_path / "v.nii.gz", array), match="3-D")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_not_finite_is_refused(tmp_path, value):
    array = random_volume().array
    array[1, 2, 3] = value
    refuses(saved(tmp_path / "v.nii.gz", array), match="finite")


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_is_refused(tmp_path, value):
    refuses(saved(tmp_path / "v.nii.gz", np.full(SHAPE, value, np.int16)), match="constant")


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], "complex64"])
def test_colours_and_complex_numbers_are_refused(tmp_path, dtype):
    array = np.zeros(SHAPE, dtype)
    path = saved(tmp_path / "v.nii.gz", array)
    refuses(path)
    refuses(path, read=images.read_labels)


def test_whole_labels_in_any_type_are_read_as_int32(tmp_path):
    labels = np.random.default_rng(0).integers(0, 40, SHAPE) * 51
    for dtype in (np.float32, np.float64, np.int16, np.uint16):
        got = images.read_labels(saved(tmp_path / "v.nii.gz", labels.astype(dtype))).array
        np.testing.assert_array_equal(got, labels)
        assert got.dtype == np.int32


@pytest.mark.parametrize("read", [images.read_labels, images.read_mask])
def test_an_image_is_neither_a_label_map_nor_a_mask_and_parcels_are(tmp_path, read):
    image = np.random.default_rng(1).integers(0, 900, (12, 14, 10)).astype(np.int16)
    refuses(saved(tmp_path / "t1w.nii.gz", image), read=read, match="looks like an image")
    parcels = np.arange(1, 61).reshape(3, 4, 5).repeat(4, 0).repeat(3, 1).repeat(2, 2)
    found = read(saved(tmp_path / "parcels.nii.gz", parcels.astype(np.int16))).array
    np.testing.assert_array_equal(found != 0, parcels != 0)


def test_labels_that_are_not_whole_are_refused(tmp_path):
    array = np.zeros(SHAPE, np.float32)
    array[2, 2, 2] = 1.5
    path = saved(tmp_path / "v.nii.gz", array)
    refuses(path, read=images.read_labels, match=r"1\.5")


def test_labels_that_a_scale_in_float32_rounds_are_whole(tmp_path):
    path = saved(tmp_path / "v.nii", np.full(SHAPE, 255, np.int16))
    with open(path, "r+b") as file:
        file.seek(112)  # scl_slope
        file.write(np.float32(1 / 255).tobytes())
    stored = np.asarray(Nifti1Image.from_filename(path).dataobj)
    assert (stored != 1).all() and np.abs(stored - 1).max() < 1e-6
    np.testing.assert_array_equal(images.read_labels(path).array, 1)


@pytest.mark.parametrize("value", [np.float64(1e12), np.uint32(2**31 + 5)])
def test_labels_beyond_int32_are_refused(tmp_path, value):
    array = np.full(SHAPE, value)
    refuses(saved(tmp_path / "v.nii.gz", array), read=images.read_labels)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_singular_affine_is_refused(tmp_path, column):
    data = bytearray(Nifti1Image(random_volume().array, oblique_affine()).to_bytes())
    rows = np.frombuffer(bytes(data[280:328]), "<f4").reshape(3, 4).copy()
    rows[:, column] = 0
    data[280:328] = rows.tobytes()  # srow_x, srow_y, srow_z
    (tmp_path / "v.nii").write_bytes(data)
    refuses(tmp_path / "v.nii", match="affine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_refused(tmp_path):
    path = saved(tmp_path / "v.nii.gz", random_volume().array)
    path.chmod(0)
    refuses(path)


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.full(SHAPE, 2**40), "whole numbers beyond int32, such as 1099511627776"),
        (np.full(SHAPE, -(2**31) - 1), "whole numbers beyond int32, such as -2147483649"),
        (np.full(SHAPE, 2**31, np.uint32), "whole numbers beyond int32, such as 2147483648"),
        (np.full(SHAPE, 3 + 4j), "voxels of the type complex128"),
        (np.full(SHAPE, "a"), "voxels of the type"),
    ],
)
def test_an_array_that_would_not_be_kept_is_refused(array, named):
    with pytest.raises(InputError, match=rf"fixed: expected \(array, affine\), got .*{named}"):
        images.source_of((array, np.eye(4)), "fixed")


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32])
def test_an_array_of_the_largest_whole_numbers_is_kept(kind):
    array = np.arange(60).reshape(3, 4, 5).astype(kind)
    array[0, 0, 0] = np.iinfo(np.int32).max
    source = images.source_of((array, np.eye(4)), "fixed")
    np.testing.assert_array_equal(images.read(source).array, array)


def test_an_array_of_half_the_digits_becomes_float32():
    array = np.arange(60).reshape(3, 4, 5).astype(jnp.bfloat16)
    volume = images.read(images.source_of((array, np.eye(4)), "fixed"))
    np.testing.assert_array_equal(volume.array, array.astype(np.float32))


def test_several_threads_that_read_leave_warnings_and_nibabels_logger_as_they_were():
    filters, disabled = list(warnings.filters), logger.disabled
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as a thread does that ends while another one reads
    assert logger.disabled and list(warnings.filters) != filters
    second.__exit__(None, None, None)
    assert logger.disabled == disabled and list(warnings.filters) == filters
    with pytest.raises(ValueError), quiet():
        raise ValueError
    assert logger.disabled == disabled and list(warnings.filters) == filters
