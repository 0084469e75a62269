"""Damaged files: whatever is in them, a command works or says in one line why it does not."""

import contextlib
import gzip
import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxreg.cli import main
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Volume
from jaxreg.io.displacement_fields import write_field
from jaxreg.io.images import write
from jaxreg.registration import register as registration

SHAPE, AFFINE = (10, 11, 12), np.diag([-9.0, 8.0, 8.5, 1.0])
AFFINE[:3, 3] = 40, -40, -45
pytestmark = pytest.mark.slow
EXAMPLES = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FIELDS = {
    "dim": (40, "<8h"),
    "datatype": (70, "<2h"),
    "pixdim": (76, "<8f"),
    "vox_offset": (108, "<3f"),
    "codes": (252, "<2h"),
    "qform": (256, "<6f"),
    "sform": (280, "<12f"),
    "magic": (344, "<4b"),
}
"""Where a NIfTI-1 header keeps what geometry and data depend on."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An image, a label map and a warp, uncompressed NIfTI."""
    folder = tmp_path_factory.mktemp("sound")
    rng = np.random.default_rng(0)
    brain = np.zeros(SHAPE, np.float32)
    brain[2:8, 2:9, 2:10] = rng.uniform(50, 200, (6, 7, 8))
    write(folder / "image.nii", Volume(brain, AFFINE))
    write(folder / "labels.nii", Volume((brain > 120).astype(np.uint8), AFFINE))
    write_field(
        folder / "warp.nii", Field(rng.normal(0, 2, (*SHAPE, 3)).astype(np.float32), AFFINE)
    )
    return folder


@st.composite
def damage(draw):
    """A function from a file's bytes to damaged ones."""
    kind = draw(st.sampled_from(["field", "field", "bytes", "header", "cut", "more", "gzip"]))
    if kind == "field":
        at, form = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
        size = struct.calcsize(form) // int(form[1:-1])
        slot = draw(st.integers(0, int(form[1:-1]) - 1))
        if form.endswith("f"):
            special = st.sampled_from([0.0, -1.0, 1e-20, 1e20, float("nan"), float("inf"), 1e4])
            value = struct.pack("<f", draw(special | st.floats(-1e3, 1e3, width=32)))
        else:
            value = draw(st.binary(min_size=size, max_size=size))
        place = at + slot * size
        return lambda data: data[:place] + value + data[place + size :]
    if kind in ("bytes", "header"):
        limit = 348 if kind == "header" else 4000
        edits = draw(st.lists(st.tuples(st.integers(0, limit), st.integers(0, 255)), max_size=12))

        def edited(data):
            data = bytearray(data)
            for place, value in edits:
                data[place % len(data)] = value
            return bytes(data)

        return edited
    if kind == "cut":
        share = draw(st.floats(0, 0.999))
        return lambda data: data[: int(share * len(data))]
    if kind == "more":
        extra = draw(st.binary(max_size=64))
        return lambda data: data + extra
    place, value = draw(st.integers(0, 3000)), draw(st.integers(0, 255))

    def packed(data):
        data = bytearray(gzip.compress(data, 1, mtime=0))
        data[place % len(data)] = value
        return bytes(data)

    return packed


def ends_well(argv):
    """Run a command: 0, or 2 with exactly one line beside warnings; returns that line."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main(argv)
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("warning: ")]
    assert code in (0, 2)
    assert len(lines) == (1 if code == 2 else 0), lines
    if code == 2:
        assert lines[0].startswith("jaxreg: ") and "Traceback" not in lines[0]
    return lines[0] if lines else ""


class _Reached(InputError):
    """Everything that depends on the header went well."""


@pytest.mark.parametrize("role", ["image", "fixed_mask", "moving_labels"])
@EXAMPLES
@given(change=damage())
def test_register_meets_damage_with_one_line(role, files, tmp_path, monkeypatch, change):
    pairs_on_grid = registration.pairs_on_grid

    def stop(*args):
        list(pairs_on_grid(*args))
        raise _Reached("reached the network grid")

    monkeypatch.setattr(registration, "pairs_on_grid", stop)
    sound = files / ("image.nii" if role == "image" else "labels.nii")
    damaged = _damaged(tmp_path, sound, change)
    images = [str(damaged if role == "image" else files / "image.nii"), str(files / "image.nii")]
    flags = [] if role == "image" else [f"--{role.replace('_', '-')}={damaged}"]
    out = tmp_path / "out"
    argv = ["register", *images, f"--out={out}", "--optimize-only", "--init=none", "--spacing=8"]
    argv.append("--extract=never")  # damage is met by the readers, and a segmentation takes seconds
    ends_well([*argv, "--quiet", *flags])
    assert {p.name for p in out.iterdir()} <= {"report.html"}


@pytest.mark.parametrize("role", ["image", "labels", "reference", "warp"])
@EXAMPLES
@given(change=damage())
def test_apply_meets_damage_with_one_line(role, files, tmp_path, change):
    sound = {name: files / f"{name}.nii" for name in ("image", "labels", "warp")}
    sound["reference"] = files / "image.nii"
    path = {**sound, role: _damaged(tmp_path, sound[role], change)}
    out = tmp_path / "moved.nii"
    out.unlink(missing_ok=True)
    kind = "labels" if role == "labels" else "image"
    where = [f"--{kind}={path[kind]}", f"--reference={path['reference']}", f"--out={out}"]
    line = ends_well(["apply", str(path["warp"]), *where, "--quiet"])
    assert out.exists() == (line == "")


@EXAMPLES
@given(change=damage(), to=st.sampled_from(["itk", "fsl", "freesurfer"]))
def test_convert_meets_damage_with_one_line(files, tmp_path, change, to):
    damaged = _damaged(tmp_path, files / "warp.nii", change)
    out = tmp_path / f"warp-{to}.{'mgz' if to == 'freesurfer' else 'nii'}"
    out.unlink(missing_ok=True)
    argv = ["convert", str(damaged), f"--to={to}", f"--out={out}"]
    line = ends_well([*argv, f"--moving={files / 'image.nii'}", "--quiet"])
    assert out.exists() == (line == "")


def _damaged(folder: Path, sound: Path, change) -> Path:
    path = folder / "damaged.nii"
    with warnings.catch_warnings():
        path.write_bytes(change(sound.read_bytes()))
    return path
