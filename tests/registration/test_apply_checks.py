"""What `jaxreg apply` says of its input: the checks and remarks of `register`, labels, affines."""

from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from registration_data import example_subject

import jaxreg
from jaxreg import cli
from jaxreg.data.scan import read_scan
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import affine_points, compose
from jaxreg.io.displacement_fields import write_field
from jaxreg.io.images import image_of, save, write
from jaxreg.io.itk_transforms import write_affine
from jaxreg.registration.apply import affine_twice
from jaxreg.registration.result import Transform

SHAPE = (12, 11, 10)
AFFINE = np.array([[-4.0, 0, 0, 20], [0, 3.5, 0, -18], [0, 0, 5, -22], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).uniform(0, 900, SHAPE).astype(np.float32)
GRID = Grid(SHAPE, AFFINE)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An image and the identity in the current folder."""
    monkeypatch.chdir(tmp_path)
    write("image.nii.gz", Volume(VALUES, AFFINE))
    write_affine("identity.mat", np.eye(4))
    return tmp_path


def apply(*flags, transforms=("identity.mat",)):
    where = ("--reference=image.nii.gz", "--out=moved.nii.gz")
    return cli.main(["apply", *transforms, *flags, *where])


def _with_header(change):
    image = image_of(Volume(VALUES, AFFINE))
    change(image)
    Path("bad.nii").write_bytes(image.to_bytes())


def _values(change):
    array = VALUES.copy()
    change(array)
    save(Path("bad.nii"), image_of(Volume(array, AFFINE)))


def _put(value):
    return lambda: _values(lambda array: array.__setitem__((3, 4, 5), value))


def _small_voxels():
    write("bad.nii", Volume(VALUES, np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE))


def _sheared():
    affine = AFFINE.copy()
    affine[0, 1] = 1.5
    image = Nifti1Image(VALUES, affine)
    image.set_sform(affine, code=1)
    image.to_filename("bad.nii")


def _dangling():
    Path("bad.nii").symlink_to("nowhere.nii")


def _dicom():
    Path("bad.nii").mkdir()
    Path("bad.nii/IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)


UNUSABLE = {
    "NaN": _put(np.nan),
    "infinite": _put(np.inf),
    "too large": _put(1e20),
    "constant": lambda: _values(lambda array: array.fill(3)),
    "too small": _small_voxels,
    "too few voxels": lambda: write("bad.nii", Volume(VALUES[:4], AFFINE)),
    "sheared": _sheared,
    "no such file": lambda: None,
    "dangling link": _dangling,
    "DICOM": _dicom,
}


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("how", ["command", "apply", "Transform.apply"])
def test_what_register_refuses_apply_refuses_in_the_same_words(place, capsys, kind, how):
    UNUSABLE[kind]()
    with pytest.raises(InputError) as wanted:
        read_scan(Path("bad.nii"))
    if how == "command":
        assert apply("--image=bad.nii") == 2
        assert f"jaxreg: {wanted.value}\n" in capsys.readouterr().err
    else:
        transform = Transform([np.eye(4)], [np.eye(4)], GRID, GRID)
        with pytest.raises(InputError) as found:
            if how == "apply":
                jaxreg.apply(np.eye(4), image="bad.nii", reference="image.nii.gz")
            else:
                transform.apply("bad.nii")
        assert str(found.value) == str(wanted.value)
    assert not Path("moved.nii.gz").exists()


def test_the_header_s_warnings_and_remarks_are_those_of_register(place, capsys):
    def turn(image):
        turned = AFFINE.copy()
        turned[:3, 3] += (10, 0, 0)
        image.set_qform(turned, code=1)

    _with_header(turn)
    Path("bad.nii.gz").write_bytes(Path("bad.nii").read_bytes())
    header, _ = read_scan(Path("bad.nii.gz"))
    assert len(header.warnings) == 2 and len(header.remarks) == 1
    assert apply("--image=bad.nii.gz") == 0
    printed = capsys.readouterr()
    assert all(f"warning: {line}\n" in printed.err for line in header.warnings)
    assert all(f"{line}\n" in printed.out for line in header.remarks)
    applied = jaxreg.apply(np.eye(4), image="bad.nii.gz", reference="image.nii.gz")
    assert (applied.warnings, applied.remarks) == (header.warnings, header.remarks)
    said = []
    Transform([np.eye(4)], [np.eye(4)], GRID, GRID).apply("bad.nii.gz", say=said.append)
    assert said == [*(f"warning: {line}" for line in header.warnings), *header.remarks]


@pytest.fixture
def kinds(place):
    """A T1w image and its label map, both whole numbers."""
    subject, _ = example_subject(1)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    image = np.rint(subject.images["T1w"] * 400).astype(np.int16)
    write("t1w.nii.gz", Volume(image, affine))
    write("labels.nii.gz", Volume(subject.labels.astype(np.int16), affine))
    write("mask.nii.gz", Volume((subject.labels > 0).astype(np.uint8), affine))
    for name, array in (("t1w_4d", image), ("labels_4d", subject.labels.astype(np.int16))):
        write(f"{name}.nii.gz", Volume(np.stack([array, array], -1), affine))


@pytest.mark.parametrize("suffix", ["", "_4d"])
def test_an_image_that_is_moved_as_labels_is_refused(kinds, capsys, suffix):
    assert apply(f"--labels=t1w{suffix}.nii.gz") == 2
    assert "got what looks like an image" in capsys.readouterr().err
    for name in ("labels", "mask"):
        if name == "labels" or not suffix:
            assert apply(f"--labels={name}{suffix}.nii.gz") == 0
            assert "warning" not in capsys.readouterr().err


def _ways(place):
    """Two images on grids of their own, and the warp that brings the second to the first."""
    fixed, moving = Grid((14, 12, 11), np.diag([4.0, 4, 4, 1])), Grid((13, 12, 10), AFFINE)
    for name, grid in (("fixed", fixed), ("moving", moving)):
        array = np.random.default_rng(2).uniform(0, 900, grid.shape).astype(np.float32)
        write(f"{name}.nii.gz", Volume(array, grid.affine))
    finer = Grid((28, 24, 22), np.diag([2.0, 2, 2, 1]) + np.array([[0, 0, 0, -1]] * 3 + [[0] * 4]))
    array = np.random.default_rng(3).uniform(0, 900, finer.shape).astype(np.float32)
    write("finer.nii.gz", Volume(array, finer.affine))
    shift = np.zeros((*fixed.shape, 3)) + [3.0, -2, 1]
    write_field("warp.nii.gz", Field(shift.astype(np.float32), fixed.affine))


@pytest.mark.parametrize(
    ("image", "reference", "inverse", "words"),
    [
        ("moving", "fixed", False, None),
        ("moving", "finer", False, None),
        ("fixed", "moving", True, None),
        ("fixed", "fixed", False, None),  # a common space: nothing can be said
        ("fixed", "moving", False, "the image lies on the grid of the displacement field"),
        ("finer", "moving", False, "the image lies on the grid of the displacement field"),
        ("moving", "fixed", True, "the reference lies on the grid of the displacement field"),
        ("moving", "moving", False, "the reference should be the fixed image"),
        ("moving", "moving", True, "the reference should be the moving image"),
    ],
)
def test_a_map_that_is_taken_the_wrong_way_round_is_warned_of(
    place, capsys, image, reference, inverse, words
):
    _ways(place)
    flags = [f"--image={image}.nii.gz", f"--reference={reference}.nii.gz", "--out=m.nii.gz"]
    code = cli.main(["apply", "warp.nii.gz", *flags, *(["--inverse"] if inverse else [])])
    said = capsys.readouterr().err
    assert code == 0
    assert ("wrong way" in said or "reference should" in said) == (words is not None), said
    assert words is None or words in said


@pytest.mark.parametrize("suffix", ["", "_4d"])
def test_labels_that_are_moved_as_an_image_are_warned_of(kinds, capsys, suffix):
    for flags, warned in (((), True), (("--interpolation=nearest",), False)):
        assert apply(f"--image=labels{suffix}.nii.gz", *flags) == 0
        assert ("--labels moves it without that" in capsys.readouterr().err) == warned
    assert apply(f"--image=t1w{suffix}.nii.gz") == 0
    assert "warning" not in capsys.readouterr().err


def test_rounded_labels_are_remarked_once(place, capsys):
    labels = (np.indices((*SHAPE, 3)).sum(0) % 4).astype(np.float32) * np.float32(0.999)
    for name, array in (("one.nii", labels[..., 0]), ("four.nii", labels)):
        save(Path(name), image_of(Volume(array, AFFINE)))
        assert apply(f"--labels={name}") == 0
        assert capsys.readouterr().out.count("rounded to whole numbers") == 1


def turned(degrees, shift_mm):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1.05, 0], [0, 0, 0, 1]])
    matrix[:3, 3] = shift_mm
    return matrix


def waves(matrix, size_mm):
    """A field that holds an affine and a smooth deformation, as warp.nii.gz does."""

    def mapping(points):
        x, y, z = points.T / 12
        wave = size_mm * np.stack([np.sin(y), np.cos(z + 1), np.sin(x)], axis=-1)
        return affine_points(matrix, points + wave)

    return compose(mapping, GRID)


def test_an_affine_beside_a_warp_that_contains_it_is_warned_of(place, capsys):
    matrix = turned(12, (5, -8, 3))
    whole, inverse = waves(matrix, 2.0), waves(np.linalg.inv(matrix), 2.0)
    write_field("warp.nii.gz", whole)
    write_affine("affine.mat", matrix)
    assert apply("--image=image.nii.gz", transforms=("warp.nii.gz", "affine.mat")) == 0
    assert "must not be combined" in capsys.readouterr().err
    assert apply("--image=image.nii.gz", transforms=("warp.nii.gz",)) == 0
    assert "warning" not in capsys.readouterr().err
    assert affine_twice([inverse, matrix]) and affine_twice([matrix, whole])


def test_an_affine_beside_a_warp_without_it_is_not(place):
    matrix, alone = turned(12, (5, -8, 3)), waves(np.eye(4), 3.0)
    others = (turned(-9, (0, 10, 0)), turned(1, (0.5, 0, 0)), np.eye(4))
    assert not affine_twice([alone, matrix])  # as ANTs writes both
    assert not any(affine_twice([waves(matrix, 2.0), other]) for other in others)
    assert not affine_twice([waves(others[1], 0.1), others[1]])
    assert not affine_twice([matrix]) and not affine_twice([alone])
    assert not affine_twice([Field(np.zeros((*SHAPE, 3), np.float32), AFFINE), np.eye(4)])


def test_the_command_says_where_the_result_is(place, capsys):
    assert apply("--image=image.nii.gz") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the moved image is in moved.nii.gz"
    Path("p.csv").write_text("x,y,z\n1,2,3\n")
    assert cli.main(["apply", "identity.mat", "--points=p.csv", "--out=q.csv"]) == 0
    assert capsys.readouterr().out == "the moved points are in q.csv\n"
    write_field("warp.nii.gz", waves(np.eye(4), 1.0))
    given = ["convert", "warp.nii.gz", "--to=fsl", "--out=fsl.nii.gz", "--moving=image.nii.gz"]
    assert cli.main(given) == 0
    assert capsys.readouterr().out == "the warp is in fsl.nii.gz, in the form fsl\n"
    assert cli.main([*given, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_what_is_odd_in_the_moving_image_is_said_by_convert(place, capsys):
    def turn(image):
        image.set_qform(turned(20, (3, 2, 1)) @ AFFINE, code=1)

    _with_header(turn)
    write_field("warp.nii.gz", waves(np.eye(4), 1.0))
    given = ["convert", "warp.nii.gz", "--to=fsl", "--out=fsl.nii.gz", "--moving=bad.nii"]
    assert cli.main(given) == 0
    assert "sform and qform lie up to" in capsys.readouterr().err
