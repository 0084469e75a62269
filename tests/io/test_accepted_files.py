"""Files that are unusual and mean what they seem to: accepted, each with a remark.

Oracles: the plain file with the same content, SimpleITK for transforms.
"""

import gzip
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from registration_data import write_subject

from jaxreg.data.cohort import read_structures
from jaxreg.data.scan import looks_like_labels
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.transforms import affine_points, map_points
from jaxreg.io.headers import read_header
from jaxreg.io.images import read, read_image, read_labels, read_mask
from jaxreg.io.itk_transforms import read_transform
from jaxreg.io.points import read_points, write_points
from jaxreg.io.tables import read_table
from jaxreg.registration.inputs import read_subject

AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 2], [0, 0, 0, 1]])
LABELS = np.random.default_rng(0).choice([0, 2, 3, 17, 41], (6, 7, 5)).astype(np.int16)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def save(path, array, *, dtype=None, kind: Any = Nifti1Image):
    image = kind(array, AFFINE)
    if dtype is not None:
        image.header.set_data_dtype(dtype)
    nib.save(image, path)  # pyright: ignore[reportPrivateImportUsage]
    return path


def test_labels_that_were_stored_with_a_scale_are_rounded_with_a_remark(tmp_path):
    for largest in (41, 12_035):  # half a step of the scale is 0.0003, then 0.09
        labels = np.where(LABELS == 41, largest, LABELS)
        path = save(tmp_path / "l.nii.gz", labels.astype(np.float32), dtype=np.int16)
        stored = read(path).array
        assert 0 < np.abs(stored - np.rint(stored)).max() < 0.2
        said = []
        got = read_labels(path, remark=said.append).array
        np.testing.assert_array_equal(got, read(save(tmp_path / "w.nii", labels)).array)
        assert len(said) == 1 and str(path) in said[0] and "rounded" in said[0]


def test_labels_farther_off_whole_numbers_are_refused_and_whole_ones_need_no_remark(tmp_path):
    with pytest.raises(InputError, match=r"integer labels.*1\.98"):
        read_labels(save(tmp_path / "l.nii", np.where(LABELS == 2, 1.98, LABELS)))
    said = []
    read_labels(save(tmp_path / "l.nii", LABELS.astype(np.float32)), remark=said.append)
    assert not said
    rng = np.random.default_rng(1)
    path = save(tmp_path / "i.nii", rng.uniform(0, 1000, (6, 7, 5)), dtype=np.int16)
    with pytest.raises(InputError, match="integer labels"):  # an image with a scale of 0.03
        read_labels(path)


def test_a_soft_mask_is_cut_at_a_half(tmp_path):
    soft = np.random.default_rng(0).uniform(-0.02, 1.02, (6, 7, 5))
    soft[0, 0, 0], soft[0, 0, 1] = 0.5, 0.4999
    said = []
    got = read_mask(save(tmp_path / "m.nii", soft), remark=said.append)
    np.testing.assert_array_equal(got.array, read(save(tmp_path / "w.nii", soft)).array >= 0.5)
    assert len(said) == 1 and "0.5" in said[0]
    hard = read_mask(save(tmp_path / "h.nii", LABELS), remark=said.append)
    np.testing.assert_array_equal(hard.array, read(tmp_path / "h.nii").array != 0)
    almost = read_mask(
        save(tmp_path / "a.nii", (LABELS > 0) * np.float32(0.99999)), remark=said.append
    )
    np.testing.assert_array_equal(almost.array, hard.array)
    assert len(said) == 2
    with pytest.raises(InputError, match=r"mask.*0 to 41\.3"):
        read_mask(save(tmp_path / "x.nii", np.where(LABELS == 41, 41.3, LABELS)))


@pytest.mark.parametrize("axes", [1, 2, 4])
def test_axes_of_length_one_are_dropped(tmp_path, axes):
    plain = save(tmp_path / "p.nii", LABELS)
    path = save(tmp_path / "a.nii.gz", LABELS.reshape(6, 7, 5, *[1] * axes))
    np.testing.assert_array_equal(read_image(path).array, read_image(plain).array)
    np.testing.assert_array_equal(read_labels(path).array, read_labels(plain).array)
    header = read_header(path)
    assert header.grid.shape == (6, 7, 5) and "length 1" in header.remarks[0]
    assert not read_header(plain).remarks
    for shape in ((6, 7, 5, 2), (6, 7, 5, 1, 3)):
        with pytest.raises(InputError, match="3-D"):
            read(save(tmp_path / "m.nii", np.ones(shape, np.uint8)))


@pytest.mark.parametrize("kind", [Nifti1Image, Nifti2Image, nib.MGHImage])  # pyright: ignore[reportPrivateImportUsage]
def test_content_decides_about_compression(tmp_path, kind):
    plain, packed = (
        ("p.mgh", "p.mgz") if kind not in (Nifti1Image, Nifti2Image) else ("p.nii", "p.nii.gz")
    )
    wanted = read(save(tmp_path / packed, LABELS, kind=kind))
    data = gzip.decompress((tmp_path / packed).read_bytes())
    for name, content in ((plain, gzip.compress(data)), (packed, data)):
        path = tmp_path / f"other_{name}"
        path.write_bytes(content)
        got = read(path)
        np.testing.assert_array_equal(got.array, wanted.array)
        np.testing.assert_allclose(got.affine, wanted.affine)
        assert "content counts" in read_header(path).remarks[0]
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=path.name):
            read(path)


def test_a_subject_carries_the_remarks_on_its_files(tmp_path):
    files = write_subject(tmp_path, 1, "T1w")
    image, mask = (nib.load(files[k]) for k in ("image", "mask"))  # pyright: ignore
    four = tmp_path / "four.nii.gz"
    nib.save(Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine), four)  # pyright: ignore
    soft = tmp_path / "soft.nii.gz"
    nib.save(Nifti1Image(np.asarray(mask.dataobj) * np.float32(0.7), mask.affine), soft)  # pyright: ignore
    got = read_subject("fixed", four, mask=soft)
    np.testing.assert_array_equal(got.mask, read_labels(files["mask"]).array != 0)
    assert ["length 1" in got.remarks[0], "soft mask" in got.remarks[1]] == [True, True]
    labels = np.asarray(read_labels(files["labels"]).array, np.float32)
    assert looks_like_labels(labels * np.float32(0.99999))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("MatrixOffsetTransformBase_double_3_3", "0.9 0.1 0 -0.2 1.1 0 0 0.1 1 4 -6 5"),
        ("MatrixOffsetTransformBase_float_3_3", "0.9 0.1 0 -0.2 1.1 0 0 0.1 1 4 -6 5"),
        ("QuaternionRigidTransform_double_3_3", "0.1 0.2 0.1 0.9 4 -6 5"),
        ("ScaleLogarithmicTransform_double_3_3", "0.1 -0.1 0.2"),
        ("ScaleSkewVersor3DTransform_double_3_3", "0.1 0 0.1 4 -6 5 1 1.1 0.9 0 0.1 0 0 0 0.1"),
        ("TranslationTransform_double_3_3", "4 -6 5"),
        ("Similarity3DTransform_double_3_3", "0.1 0.2 0.1 4 -6 5 1.1"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_linear_transform_of_any_kind_takes_points_where_itk_takes_them(
    tmp_path, kind, parameters, nested
):
    fixed = "" if kind.startswith("Translation") else "10 -20 30"
    path = tmp_path / "t.txt"
    path.write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: {kind}\n"
        f"Parameters: {parameters}\nFixedParameters: {fixed}\n"
    )
    itk: Any = sitk.ReadTransform(str(path))
    if nested:
        both = sitk.CompositeTransform([sitk.TranslationTransform(3, (1, 2, 3)), itk])
        itk = sitk.CompositeTransform([both, sitk.ScaleTransform(3, (1.1, 0.9, 1))])
        path = tmp_path / "nested.tfm"
        flat = sitk.CompositeTransform(itk)
        flat.FlattenTransform()
        sitk.WriteTransform(flat, str(path))
    points = np.random.default_rng(0).uniform(-80, 80, (9, 3))
    wanted = [itk.TransformPoint(tuple(p)) for p in affine_points(LPS, points)]
    got = map_points(read_transform(path), points)
    np.testing.assert_allclose(got, affine_points(LPS, np.array(wanted)), atol=1e-4)


def test_a_composite_of_a_field_and_an_unnamed_affine_keeps_its_order(tmp_path):
    (tmp_path / "t.txt").write_text(
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: MatrixOffsetTransformBase_double_3_3\n"
        "Parameters: 0.9 0.1 0 -0.2 1.1 0 0 0.1 1 4 -6 5\nFixedParameters: 1 2 3\n"
    )
    image = sitk.GetImageFromArray(
        np.random.default_rng(0).normal(size=(4, 5, 6, 3)), isVector=True
    )
    image.SetSpacing((30, 30, 30))
    field = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
    both = sitk.CompositeTransform([field, sitk.ReadTransform(str(tmp_path / "t.txt"))])
    sitk.WriteTransform(field, str(tmp_path / "field.txt"))
    parts = [(tmp_path / name).read_text().split("\n", 2)[2] for name in ("field.txt", "t.txt")]
    (tmp_path / "both.txt").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: CompositeTransform_double_3_3\n"
        f"#Transform 1\n{parts[0]}\n#Transform 2\n{parts[1]}"
    )
    affine, warp = read_transform(tmp_path / "both.txt")
    assert isinstance(affine, np.ndarray) and isinstance(warp, Field)
    point = (20.0, 31.0, 40.0)
    got = map_points([affine, warp], affine_points(LPS, np.array([point])))
    np.testing.assert_allclose(affine_points(LPS, got)[0], both.TransformPoint(point), atol=1e-4)


def test_blanks_and_trailing_tabs_in_a_table_are_left_out(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("fixed \tmoving\t\t\na b.nii.gz \t m.nii.gz\t\t\n\t\t\t\n \nc\td\t\t\t\t\n")
    rows = [{"fixed": "a b.nii.gz", "moving": "m.nii.gz"}, {"fixed": "c", "moving": "d"}]
    assert read_table(path, ("fixed", "moving")) == rows
    (tmp_path / "labels.tsv").write_text("index\tname\t\r\n17\tLeft hippocampus \t\r\n")
    assert read_structures(tmp_path / "labels.tsv") == {17: "Left hippocampus"}


@pytest.mark.parametrize(
    ("separator", "words"), [(",", "commas"), (";", "semicolons"), (" ", "blanks")]
)
@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (("fixed", "moving"), ("fixed", "moving")),
        (("participant_id", "age", "split"), ("participant_id", "split")),
        (("index", "name"), ("index", "name")),
        (('"image"', '"mask"'), ("image",)),
    ],
)
def test_a_table_without_tabs_is_told_of_them(tmp_path, separator, words, header, columns):
    path = tmp_path / "t.csv"
    path.write_text(f"{separator.join(header)}\n{separator.join('123'[: len(header)])}\n")
    with pytest.raises(InputError, match=f"tabs separate, got {words} in the header"):
        read_table(path, columns)
    path.write_text(path.read_text().replace(separator, "\t").replace('"', ""))
    assert len(read_table(path, columns)) == 1


def test_a_short_row_is_not_taken_for_a_missing_column(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("fixed\tmoving\na,b\n")
    with pytest.raises(InputError, match="a value of the column moving in each row") as caught:
        read_table(path, ("fixed", "moving"))
    assert "tabs" not in str(caught.value)


@pytest.mark.parametrize("header", ["name,x,y", "x,y,z,x", "x;y;z", "a,b,c"])
def test_points_need_each_coordinate_once(tmp_path, header):
    path = tmp_path / "p.csv"
    path.write_text(f"{header}\n{header.replace('x', '1')}\n")
    with pytest.raises(InputError, match="expected the header x,y,z") as caught:
        read_points(path)
    assert ("separated by commas" in str(caught.value)) == (";" in header)


def test_points_of_the_lps_convention_are_flipped_and_written_back(tmp_path):
    path, again = tmp_path / "p.csv", tmp_path / "q.csv"
    path.write_text("x,y,z,t,\n10,-20,30,0,\n1.5,0,-2,0\n,,,\n".replace("-2,0\n", "-2,0,\n"))
    table = read_points(path, convention="lps")
    np.testing.assert_array_equal(table.points, [[-10, 20, 30], [-1.5, 0, -2]])
    assert table.looks_like_ants
    write_points(again, table)
    assert again.read_text().splitlines()[1] == "10.000000,-20.000000,30.000000,0"
    np.testing.assert_array_equal(read_points(path).points, [[10, -20, 30], [1.5, 0, -2]])
    (tmp_path / "own.csv").write_text("x,y,z,name\n1,2,3,a\n")
    assert not read_points(tmp_path / "own.csv").looks_like_ants


def test_what_is_no_file_is_named_as_what_it_is(tmp_path):
    dicom = tmp_path / "scan" / "series" / "IM0001"
    dicom.parent.mkdir(parents=True)
    dicom.write_bytes(bytes(128) + b"DICM" + bytes(100))
    (tmp_path / "empty.nii").mkdir()
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    (tmp_path / "single.nii").write_bytes(dicom.read_bytes())
    for name, words in {
        "scan": "folder of DICOM files",
        "scan/series": "dcm2niix",
        "empty.nii": "got a folder",
        "link.nii.gz": "gone.nii.gz, which does not exist",
        "single.nii": "a DICOM file",
        "scan/series/IM0001": "a DICOM file",
    }.items():
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)
    for reader in (read_transform, read_points):
        with pytest.raises(InputError, match="which does not exist"):
            reader(tmp_path / "link.nii.gz")
    with pytest.raises(InputError, match="got a folder"):
        read_table(tmp_path / "empty.nii", ())
