"""4-D images through `jaxreg apply`: volume by volume as 3-D images, and as SciPy moves them."""

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from opened_files import opened_files
from scipy.ndimage import map_coordinates

import jaxreg
from jaxreg import cli
from jaxreg.errors import InputError
from jaxreg.geometry import transforms
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import affine_points, compose, voxel_indices
from jaxreg.io import images
from jaxreg.io.displacement_fields import write_field
from jaxreg.io.itk_transforms import write_affine
from jaxreg.io.series import read_series
from jaxreg.registration.result import Transform

SHAPE, COUNT = (13, 10, 9), 4
STORED = np.array([[-3.0, 0, 0, 17], [0, 0, 3.2, -15], [0, 3.5, 0, -12], [0, 0, 0, 1]])
"""Axes that run to the left, upwards and to the front."""
GRID = Grid(
    (11, 9, 8), np.array([[3.1, 0, 0, -15], [0, 3.3, 0, -12], [0, 0, 3, -10], [0, 0, 0, 1]])
)
RNG = np.random.default_rng(3)
VALUES = RNG.normal(400, 90, (*SHAPE, COUNT)).astype(np.int16)
LABELS = RNG.integers(0, 4, (*SHAPE, COUNT)).astype(np.int16) * 90
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""nibabel does not close a .mgh file whose header it has read."""


def wave(points):
    x, y, z = points.T / 9
    return points + 2.5 * np.stack([np.sin(y), np.cos(z), np.sin(x + 0.4)], axis=-1)


def save(path, array, kind: Any = Nifti1Image, slope=None):
    image = kind(array, STORED)
    if kind is MGHImage:
        image.header.set_zooms((3.0, 3.5, 3.2, 1500.0)[: array.ndim])
    else:
        image.set_qform(STORED, code=1)
        image.header.set_xyzt_units("mm", "sec")
        if array.ndim > 3:
            image.header["pixdim"][4] = 1.5
            image.header["toffset"] = 0.25
        if slope:
            image.header.set_slope_inter(slope, -3)
    image.to_filename(path)
    return path


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A warp, an affine, a reference and a series of four volumes in the current folder."""
    monkeypatch.chdir(tmp_path)
    field = compose(wave, GRID)
    write_field("warp.nii.gz", field)
    shift = np.eye(4)
    shift[:3, 3] = (2, -1, 1.5)
    write_affine("shift.mat", shift)
    images.write("ref.nii.gz", Volume(np.zeros(GRID.shape, np.uint8), GRID.affine))
    save("func.nii.gz", VALUES)
    save("labels.nii.gz", LABELS)
    return tmp_path


def apply(*flags, warp="warp.nii.gz", out="moved.nii.gz"):
    assert cli.main(["apply", warp, *flags, "--reference=ref.nii.gz", f"--out={out}"]) == 0
    return load(out)


MODES = [
    ("image", VALUES, ()),
    ("image", VALUES, ("--interpolation=nearest", "--fill=-7")),
    ("image", VALUES, ("--interpolation=bspline", "--fill=3.5")),
    ("labels", LABELS, ()),
    ("labels", LABELS, ("--interpolation=label", "--fill=1000")),
]


@pytest.mark.parametrize(("kind", "array", "flags"), MODES)
@pytest.mark.parametrize("inverse", [False, True])
def test_a_series_is_moved_as_its_volumes_are(place, kind, array, flags, inverse):
    flags = (*flags, "--inverse") if inverse else flags
    save("series.nii.gz", array)
    got = apply(f"--{kind}=series.nii.gz", *flags)
    assert got.shape == (*GRID.shape, COUNT)
    for number in range(COUNT):
        save("one.nii.gz", array[..., number])
        one = apply(f"--{kind}=one.nii.gz", *flags, out="one_moved.nii.gz")
        same = np.asarray(got.dataobj[..., number])
        np.testing.assert_array_equal(same, np.asarray(one.dataobj))
        assert (got.get_data_dtype() == np.float32) == (kind == "image")
        for key in ("sform_code", "qform_code"):
            assert got.header[key] == one.header[key]
    np.testing.assert_array_equal(got.affine, load("ref.nii.gz").affine)


def test_a_series_is_what_scipy_makes_of_it(place):
    got = np.asarray(apply("--image=func.nii.gz").dataobj)
    moving = wave(affine_points(GRID.affine, voxel_indices(GRID)))
    index = affine_points(np.linalg.inv(STORED), moving)
    deep = ((index > 0) & (index < np.array(SHAPE) - 1)).all(axis=1)
    assert 200 < deep.sum() < len(index)
    for number in range(COUNT):
        wanted = map_coordinates(VALUES[..., number].astype(float), index[deep].T, order=1)
        np.testing.assert_allclose(got[..., number].reshape(-1)[deep], wanted, atol=0.02)


@pytest.mark.parametrize(
    ("name", "kind", "slope"),
    [
        ("f.nii", Nifti1Image, None),
        ("f.nii.gz", Nifti2Image, 0.5),
        ("f.mgz", MGHImage, None),
        pytest.param("f.mgh", MGHImage, None, marks=LEFT_OPEN),
    ],
)
def test_every_format_gives_the_same_and_keeps_the_time_axis(place, name, kind, slope):
    save(name, VALUES, kind, slope)
    wanted = apply("--image=func.nii.gz")
    got = apply(f"--image={name}", out="other.nii.gz")
    scaled = np.asarray(wanted.dataobj) * (slope or 1) - (3 if slope else 0)
    if not slope:
        np.testing.assert_array_equal(np.asarray(got.dataobj), scaled)
    else:
        inner = np.asarray(wanted.dataobj) != 0  # 0 is the fill
        np.testing.assert_allclose(np.asarray(got.dataobj)[inner], scaled[inner], atol=1e-3)
    unit, step = ("msec", 1500) if kind is MGHImage else ("sec", 1.5)
    assert got.header.get_xyzt_units() == ("mm", unit)
    assert got.header.get_zooms()[3] == step
    assert float(got.header["toffset"]) == (0 if kind is MGHImage else 0.25)


def test_the_file_is_the_one_that_would_be_written_from_memory(place):
    for name in ("moved.nii", "moved.nii.gz"):
        apply("--image=func.nii.gz", out=name)
        applied = jaxreg.apply("warp.nii.gz", image="func.nii.gz", reference="ref.nii.gz")
        applied.save(f"python-{name}")
        files = [Path(f"{start}{name}").read_bytes() for start in ("", "python-")]
        if name.endswith(".gz"):
            files = [gzip.decompress(data) for data in files]
        assert files[0] == files[1]
    first = Path("moved.nii.gz").read_bytes()
    apply("--image=func.nii.gz")
    assert Path("moved.nii.gz").read_bytes() == first


def test_python_takes_a_series_from_memory(place):
    wanted = np.asarray(apply("--image=func.nii.gz").dataobj)
    for image in (load("func.nii.gz"), (VALUES, STORED)):
        got = jaxreg.apply("warp.nii.gz", image=image, reference="ref.nii.gz").image
        np.testing.assert_array_equal(np.asarray(got.dataobj), wanted)


def test_trailing_axes_of_one_are_dropped_and_a_4d_reference_gives_its_grid(place, capsys):
    wanted = np.asarray(apply("--image=func.nii.gz").dataobj)
    save("more.nii.gz", VALUES[..., None, None])
    np.testing.assert_array_equal(np.asarray(apply("--image=more.nii.gz").dataobj), wanted)
    save("single.nii.gz", VALUES[..., :1])
    capsys.readouterr()
    assert apply("--image=single.nii.gz").shape == GRID.shape
    assert "axes of length 1 are dropped" in capsys.readouterr().out
    images.save("ref4.nii.gz", images.image_of(Volume(np.zeros((*GRID.shape, 3)), GRID.affine)))
    flags = ["--image=func.nii.gz", "--reference=ref4.nii.gz", "--out=r.nii.gz"]
    assert cli.main(["apply", "warp.nii.gz", *flags]) == 0
    np.testing.assert_array_equal(np.asarray(load("r.nii.gz").dataobj), wanted)


def test_the_field_is_passed_once(place, monkeypatch):
    calls = []
    interpolate = transforms._interpolate

    def counted(vectors, index):
        calls.append(len(index))
        return interpolate(vectors, index)

    monkeypatch.setattr(transforms, "_interpolate", counted)
    apply("--image=func.nii.gz")
    assert sum(calls) == np.prod(GRID.shape)


def test_the_memory_does_not_grow_with_the_number_of_volumes(place):
    peaks = []
    for count in (3, 403):
        save("long.nii", np.tile(VALUES, 101)[..., :count])
        tracemalloc.start()
        apply("--image=long.nii")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    moved = 4 * np.prod(GRID.shape)  # the bytes of one volume
    assert peaks[1] - peaks[0] < 50 * moved


def test_the_type_of_labels_holds_every_volume(place):
    labels = np.where(LABELS == 270, 3, LABELS).astype(np.int32)
    labels[..., 3][LABELS[..., 3] == 270] = 40_000
    save("labels.nii", labels)
    got = apply("--labels=labels.nii")
    assert got.get_data_dtype() == np.uint16
    assert set(np.unique(np.asarray(got.dataobj)[..., 3])) == {0, 90, 180, 40_000}


def _rgb(path):
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    Nifti1Image(np.zeros(SHAPE, kind), STORED).to_filename(path)


def _with_intent(path, intent, shape=(*SHAPE, 3)):
    image = Nifti1Image(np.ones(shape, np.float32), STORED)
    image.header.set_intent(intent)
    image.to_filename(path)


def _not_finite(path):
    values = VALUES.astype(np.float32)
    values[2, 3, 4, 3] = np.nan
    save(path, values)


def _cut(path):
    save(path, VALUES)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (_rgb, "colours"),
        (lambda p: _with_intent(p, "vector", (*SHAPE, 1, 3)), "vectors or tensors"),
        (lambda p: _with_intent(p, "vector"), "vectors or tensors"),
        (lambda p: _with_intent(p, "symmetric matrix", (*SHAPE, 6)), "vectors or tensors"),
        (lambda p: _with_intent(p, "fnirt disp field"), "vectors or tensors"),
        (lambda p: save(p, np.ones((*SHAPE, 2, 2), np.uint8)), "3-D image or a 4-D series"),
        (_not_finite, "1 NaN"),
        (_cut, "truncated|not readable"),
        (lambda p: save(p, np.ones((*SHAPE, 3), np.uint8)), "constant"),
        (lambda p: save(p, VALUES * np.float32(1e30)), "intensities"),
    ],
)
def test_what_is_no_series_of_images_is_refused_and_nothing_written(place, capsys, make, named):
    make(place / "bad.nii.gz")
    before = sorted(p.name for p in place.iterdir())
    argv = ["apply", "shift.mat", "--image=bad.nii.gz", "--reference=ref.nii.gz", "--out=m.nii.gz"]
    assert cli.main(argv) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxreg: ")]
    assert len(err) == 1 and any(word in err[0] for word in named.split("|"))
    assert "bad.nii.gz" in err[0]
    assert sorted(p.name for p in place.iterdir()) == before


def test_a_constant_volume_among_others_is_remarked(place, capsys):
    values = VALUES.copy()
    values[..., 1] = 5
    save("func.nii.gz", values)
    apply("--image=func.nii.gz")
    assert "constant volumes, counted from 0: 1" in capsys.readouterr().out


def test_a_damaged_time_step_is_written_as_unknown(place):
    image = load("func.nii.gz")
    image.header["pixdim"][4] = np.nan
    Path("nan.nii").write_bytes(image.to_bytes())
    assert apply("--image=nan.nii").header["pixdim"][4] == 0


def test_volumes_are_read_in_turn_from_a_file_that_is_opened_once(place):
    series = read_series("func.nii.gz")
    assert series is not None
    with opened_files() as counts:
        arrays = list(series.volumes())
    assert len(arrays) == COUNT and counts["func.nii.gz"] == 1
    wanted = images.read(save("one.nii", VALUES[..., 2]))
    np.testing.assert_array_equal(arrays[2], wanted.array)
    np.testing.assert_array_equal(series.affine, wanted.affine)
    assert series.shape == wanted.array.shape


def test_more_volumes_than_nifti_holds_are_refused(place):
    save("long.nii.gz", np.zeros((7, 7, 7, 33_000), np.uint8), Nifti2Image)
    with pytest.raises(InputError, match="32,767 volumes"):
        jaxreg.apply(np.eye(4), image="long.nii.gz", reference="ref.nii.gz")


def test_the_transform_of_a_result_takes_a_series(place):
    transform = Transform([compose(wave, GRID)], [np.eye(4)], GRID, GRID)
    got = transform.apply("func.nii.gz")
    wanted = apply("--image=func.nii.gz")
    np.testing.assert_allclose(np.asarray(got.dataobj), np.asarray(wanted.dataobj), atol=0.05)
    assert got.header.get_zooms()[3] == 1.5
    assert isinstance(transform.chain[0], Field)


def test_the_transform_of_a_result_takes_a_series_of_labels(place):
    got = Transform([compose(wave, GRID)], [np.eye(4)], GRID, GRID).apply(
        "labels.nii.gz", labels=True
    )
    wanted = apply("--labels=labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(got.dataobj), np.asarray(wanted.dataobj))
    assert got.get_data_dtype() == wanted.get_data_dtype()


def test_the_transform_of_a_result_tells_python_of_what_is_odd(place):
    transform = Transform([np.eye(4)], [np.eye(4)], GRID, GRID)
    flat = np.repeat(np.repeat(np.repeat(LABELS[:6, :5, :4, 0], 2, 0), 2, 1), 2, 2)
    save("flat.nii.gz", flat)
    lines: list[str] = []
    transform.apply("flat.nii.gz", say=lines.append)
    (line,) = [line for line in lines if line.startswith("warning: ")]
    assert line.endswith("which mixes its labels; labels moves it without that.")
    with pytest.warns(UserWarning, match="looks like a label map"):
        transform.apply("flat.nii.gz")


@pytest.mark.parametrize("points", [[[0.0, 0]], [[np.nan, 0, 0]], [["a", 0, 0]], [1.0, 2, 3]])
def test_the_transform_of_a_result_refuses_what_are_no_points(points):
    with pytest.raises(InputError, match="^points: expected"):
        Transform([np.eye(4)], [np.eye(4)], GRID, GRID).apply_points(points)
