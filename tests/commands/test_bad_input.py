"""What a user can hand to register, apply, sweep and compare: code 2, one line, nothing written."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from registration_data import SPACING_MM, example_subject, motion, write_subject

from jaxreg.cli import main
from jaxreg.data.scan import looks_like_labels
from jaxreg.geometry.grid import Volume
from jaxreg.io.headers import forms_apart, read_header
from jaxreg.io.images import read_image, write
from jaxreg.io.itk_transforms import write_affine
from jaxreg.registration.contrast_check import T1W_FROM, depth_contrast, domain_warnings
from jaxreg.registration.inputs import read_subject

DIRECT = ("--optimize-only", "--init=none")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The files of two phantoms, to be copied from."""
    folder = tmp_path_factory.mktemp("sound")
    return folder, write_subject(folder, 1, "T1w"), write_subject(folder, 2, "T2w")


@pytest.fixture
def place(sound, tmp_path, monkeypatch):
    """A working directory with f.nii.gz and m.nii.gz, and their masks and labels."""
    _, fixed, moving = sound
    for name, files in (("f", fixed), ("m", moving)):
        for kind, path in files.items():
            end = "" if kind == "image" else f"_{kind}"
            shutil.copy(path, tmp_path / f"{name}{end}.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capfd, *flags, out="out", images=("f.nii.gz", "m.nii.gz")):
    """The reason on stderr of a registration that is refused with code 2."""
    assert main(["register", *images, f"--out={out}", *flags]) == 2
    return reason(capfd.readouterr().err)


def reason(err):
    """The one line on stderr that says why, after the phases that had begun ("read …")."""
    *phases, line = err.splitlines()
    assert line.startswith("jaxreg: ") and all(" …" in p for p in phases), err
    return line


def run_python(code):
    """What a Python process of its own does; the fork warns, as JAX has threads here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )


def rewrite(path, change):
    """Put a changed array and affine into a file."""
    volume = read_image(path)
    array, affine = change(volume.array.copy(), volume.affine.copy())
    image: Any = nib.Nifti1Image(array, affine)  # pyright: ignore[reportPrivateImportUsage]
    Path(path).write_bytes(b"")
    image.to_filename(path)


def with_nan(array, affine):
    array[3, 3, 3] = np.nan
    return array, affine


def far_away(array, affine):
    affine[:3, 3] += 2000
    return array, affine


def tiny(array, affine):
    affine[:3, :3] *= 1e-3
    return array, affine


def sheared(array, affine):
    affine[0, 1] = 3
    return array, affine


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (far_away, ["fields of view do not overlap", "RAS"]),
        (lambda a, m: (np.stack([a, a], -1), m), ["3-D", "m.nii.gz"]),
        (lambda a, m: (a[:, :, 0], m), ["3-D"]),
        (lambda a, m: (a[:, :, :1], m), ["along each axis"]),
        (lambda a, m: (np.rint(a / 300), m), ["label map"]),
        (lambda a, m: ((a > 0).astype(np.float32), m), ["label map"]),
        (with_nan, ["1 NaN"]),
        (lambda a, m: (np.full_like(a, 7), m), ["constant"]),
        (tiny, ["field of view", "mm"]),
        (sheared, ["orthogonal"]),
    ],
)
def test_an_unusable_image_is_refused_with_a_report_of_the_reason(place, capfd, change, named):
    rewrite(place / "m.nii.gz", change)
    line = refused(capfd, *DIRECT)
    assert all(name in line for name in named), line
    assert [p.name for p in (place / "out").iterdir()] == ["report.html"]
    reason = line.removeprefix("jaxreg: ").strip().split(":")[-1][:30]
    page = (place / "out" / "report.html").read_text(encoding="utf-8")
    assert reason.split("<")[0].strip() in page.replace("&#x27;", "'")


@pytest.mark.parametrize("value", [0.0, -8.0, np.nan])
def test_a_voxel_size_that_is_none_is_refused(place, capfd, value):
    image: Any = nib.load("m.nii.gz")  # pyright: ignore[reportPrivateImportUsage]
    data = bytearray(image.to_bytes())
    data[80:84] = np.float32(value).tobytes()
    Path("m.nii").write_bytes(bytes(data))
    line = refused(capfd, *DIRECT, images=("f.nii.gz", "m.nii"))
    assert "voxel sizes above 0" in line


def test_a_truncated_file_is_refused(place, capfd):
    data = Path("f.nii.gz").read_bytes()
    Path("f.nii.gz").write_bytes(data[: len(data) * 2 // 3])
    assert "f.nii.gz" in refused(capfd, *DIRECT)


@pytest.mark.parametrize("flag", ["moving-mask", "moving-ignore", "moving-labels"])
def test_a_mask_on_another_grid_than_its_image_is_refused(place, capfd, flag):
    line = refused(capfd, *DIRECT, f"--{flag}=m_mask_shifted.nii.gz")
    assert "m_mask_shifted.nii.gz: no such file" in line
    mask = read_image("m_mask.nii.gz")
    moved = mask.affine.copy()
    moved[0, 3] += 3
    write("m_mask_shifted.nii.gz", Volume(mask.array.astype(np.uint8), moved))
    assert "expected the grid of m.nii.gz" in refused(
        capfd, *DIRECT, f"--{flag}=m_mask_shifted.nii.gz"
    )


def test_a_series_is_refused_with_what_to_do(place, capfd):
    image = read_image("m.nii.gz")
    series = np.stack([image.array] * 3, axis=-1)
    nib.Nifti1Image(series, image.affine).to_filename("m.nii.gz")  # pyright: ignore
    said = refused(capfd, *DIRECT)
    assert "register one volume of the series or its mean" in said and "jaxreg apply" in said


def test_contrasts_that_the_network_does_not_know_are_refused(place, capfd):
    assert "did you mean T1w,T2w?" in refused(capfd, "--domains=T1,T2")
    assert "did you mean T2w,T1w?" in refused(capfd, "--domains=t2w,t1w")
    said = refused(capfd, "--domains=FLAIR,T2w")
    assert "expected T1w and T2w" in said and "did you mean" not in said


def test_an_image_that_is_given_twice_is_warned_of(place, capfd):
    shutil.copy("f.nii.gz", "again.nii.gz")
    moved = read_image("f.nii.gz")
    write("shifted.nii.gz", Volume(moved.array, moved.affine + np.eye(4, k=3)))
    for moving, twice in (("f.nii.gz", 1), ("again.nii.gz", 1), ("shifted.nii.gz", 0)):
        flags = ["--transform=rigid", "--extract=never", "--outputs=warp", "--overwrite"]
        assert main(["register", "f.nii.gz", moving, "--out=out", *flags]) == 0
        captured = capfd.readouterr()
        assert captured.err.count("fixed and moving are the same image: f.nii.gz") == twice


def test_an_empty_mask_is_refused(place, capfd):
    mask = read_image("m_mask.nii.gz")
    write("empty.nii.gz", Volume(np.zeros(mask.array.shape, np.uint8), mask.affine))
    assert "empty.nii.gz" in refused(capfd, *DIRECT, "--moving-mask=empty.nii.gz")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--optimize-only", "--model=run"], ["both"]),
        (["--optimize-only", "--lam=1.5"], ["--lam", "1.5"]),
        (["--optimize-only", "--lam=nan"], ["--lam"]),
        (["--optimize-only", "--loss=nce"], ["--loss", "nce"]),
        (["--optimize-only", "--steps=0"], ["--steps"]),
        (["--optimize-only", "--spacing=0"], ["--spacing"]),
        (["--optimize-only", "--refine=5"], ["--refine"]),
        (["--optimize-only", "--domains=T1w,T2w"], ["--domains"]),
        (["--model=run", "--loss=mi"], ["--loss"]),
        (["--model=absent"], ["absent"]),
        (["--model=run", "--domains=T1w"], ["--domains"]),
        (["--transform=similarity"], ["--transform", "rigid"]),
        (["--transform=rigid", "--model=run"], ["--model", "rigid"]),
        (["--transform=rigid", "--init=com"], ["--init", "rigid"]),
        (["--optimize-only", "--init=centre"], ["--init", "centre"]),
        (["--optimize-only", "--init=f.nii.gz"], ["--init", "f.nii.gz"]),
    ],
)
def test_wrong_flags_are_refused(place, capfd, flags, named):
    line = refused(capfd, *flags)
    assert all(name in line for name in named), line


def test_a_missing_image_leaves_nothing(place, capfd):
    assert "absent.nii: no such file" in refused(capfd, *DIRECT, images=("absent.nii", "m.nii.gz"))
    assert not (place / "out").exists()


def test_a_folder_with_another_run_is_refused_and_stays(place, capfd):
    out = place / "out"
    out.mkdir()
    (out / "warp.nii.gz").write_bytes(b"another run")
    assert "--overwrite" in refused(capfd, *DIRECT)
    rewrite(place / "m.nii.gz", far_away)
    refused(capfd, *DIRECT, "--overwrite")  # fails later, and the earlier run stays
    assert [p.name for p in out.iterdir()] == ["warp.nii.gz"]
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(capfd, *DIRECT, "--overwrite")
    assert "got a file" in refused(capfd, *DIRECT, out="f.nii.gz")


def test_a_full_disk_leaves_nothing_but_one_line(place):
    """Files may not grow beyond 20 kB: writing fails half way, as on a full disk."""
    argv = ["register", "f.nii.gz", "m.nii.gz", "--out=out", "--transform=rigid"]
    code = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false';"  # it would remark that it is full
        f"from jaxreg.cli import main; sys.exit(main({argv}))"
    )
    done = run_python(code)
    assert done.returncode == 2, done.stderr
    assert "not written" in reason(done.stderr)
    assert not (place / "out").exists() and not list(place.glob(".*"))


def test_forms_that_disagree_are_mentioned_and_the_sform_is_used(place):
    image: Any = nib.load("f.nii.gz")  # pyright: ignore[reportPrivateImportUsage]
    array = np.asarray(image.dataobj)
    turned = motion(2, (0, 0, 0)) @ image.affine
    for other, mentioned in ((turned, True), (image.affine, False)):
        changed: Any = nib.Nifti1Image(array, image.affine)  # pyright: ignore[reportPrivateImportUsage]
        changed.set_sform(image.affine, code=1)
        changed.set_qform(other, code=1)
        changed.to_filename("forms.nii.gz")
        header = read_header("forms.nii.gz")
        assert bool(header.warnings) == mentioned
        if mentioned:
            assert "° apart" in header.warnings[0] and "sform is used" in header.warnings[0]
        np.testing.assert_allclose(header.grid.affine, image.affine, atol=1e-5)


def test_forms_apart_is_the_worst_corner_and_the_angle():
    shifted = np.eye(4)
    shifted[2, 3] = 0.3
    assert forms_apart(np.eye(4), shifted, (5, 5, 5)) == pytest.approx((0.3, 0))
    turn = np.diag([1.0, 1.0, 1.0, 1.0])
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    apart_mm, degrees = forms_apart(np.eye(4), turn, (2, 2, 2))
    assert degrees == pytest.approx(np.degrees(0.1))
    assert apart_mm == pytest.approx(2 * np.sin(0.05) * np.sqrt(2))  # chord of the far corner


@pytest.mark.parametrize("index", [0, 1, 2])
def test_phantoms_look_like_their_own_modality(index):
    subject, _ = example_subject(index)
    mask = subject.labels > 0
    spacing_mm = (SPACING_MM, SPACING_MM, SPACING_MM)
    contrast = {d: depth_contrast(subject.images[d], mask, spacing_mm) for d in ("T1w", "T2w")}
    assert contrast["T1w"] > T1W_FROM > contrast["T2w"]
    both = contrast["T1w"], contrast["T2w"]
    assert domain_warnings(both, ("T1w", "T2w")) == ()
    (line,) = domain_warnings(both, ("T2w", "T1w"))
    assert "swapped" in line and "--domains T1w,T2w" in line
    assert len(domain_warnings((both[0], both[0]), ("T1w", "T2w"))) == 1
    assert domain_warnings(both, ("FLAIR", "CT")) == ()


def test_a_brain_cut_out_of_zeros_is_known_for_one_and_a_head_is_not(place):
    brain = read_subject("fixed", Path("f.nii.gz"))
    assert brain.brain_known and not brain.warnings and "litres" in brain.remarks[0]
    volume = read_image("f.nii.gz")
    noise = np.random.default_rng(0).rayleigh(8, volume.array.shape)
    head = volume.array + 600 * (np.indices(volume.array.shape)[2] < 8)  # a neck
    write("head.nii.gz", Volume((head + noise).astype(np.float32), volume.affine))
    whole = read_subject("fixed", Path("head.nii.gz"))
    assert not whole.brain_known and "whole head" in whole.warnings[0]
    assert whole.mask.shape == whole.image.array.shape
    masked = read_subject("fixed", Path("head.nii.gz"), mask=Path("f_mask.nii.gz"))
    assert masked.brain_known and not masked.warnings


def test_images_do_not_look_like_labels_and_labels_do():
    subject, _ = example_subject(1)
    assert looks_like_labels(subject.labels.astype(np.float32))
    assert looks_like_labels((subject.labels > 0).astype(np.float32))
    for image in subject.images.values():
        assert not looks_like_labels(np.rint(image * 200))
        assert not looks_like_labels(image)


def test_apply_refuses_a_wrong_reference_in_one_line(place, capfd):
    argv = ["apply", "absent.mat", "--image=m.nii.gz", "--reference=f.nii.gz", "--out=o.nii.gz"]
    assert main(argv) == 2
    assert reason(capfd.readouterr().err)
    assert not Path("o.nii.gz").exists()


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_apply_refuses_what_lies_nowhere_on_the_reference(place, capfd, kind):
    write_affine("identity.mat", np.eye(4))
    source = "m.nii.gz" if kind == "image" else "m_labels.nii.gz"
    argv = ["apply", "identity.mat", f"--{kind}={source}", "--reference=f.nii.gz", "--out=o.nii.gz"]
    assert main(argv) == 0
    Path("o.nii.gz").unlink()
    rewrite(place / source, far_away)
    assert main(argv) == 2
    assert "field of view" in capfd.readouterr().err and not Path("o.nii.gz").exists()


def test_apply_warns_of_points_in_the_table_of_ants(place, capfd):
    write_affine("identity.mat", np.eye(4))
    for header, warned in (("x,y,z,t", True), ("x,y,z,name", False)):
        Path("p.csv").write_text(f"{header}\n1,2,3,0\n")
        assert main(["apply", "identity.mat", "--points=p.csv", "--out=q.csv"]) == 0
        assert ("LPS" in capfd.readouterr().err) == warned


def test_compare_and_sweep_refuse_what_they_do_not_know(place, capfd):
    argv = ["f.nii.gz", "m.nii.gz", "--optimize-only"]
    assert main(["compare", *argv, "--with=ants,spm"]) == 2
    assert "spm" in capfd.readouterr().err
    assert main(["sweep", *argv, "--out=out", "--lam=0.5"]) == 2
    assert "--lam" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["register", "segment"])
def test_a_file_is_refused_before_jax_is_imported(place, command):
    (place / "text.nii.gz").write_text("no image")
    images = ["text.nii.gz", "m.nii.gz"] if command == "register" else ["text.nii.gz"]
    code = (
        "import sys\nfrom jaxreg.cli import main\n"
        f"print(main({[command, *images, '--out', 'refused']}), 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert "text.nii.gz: not readable" in done.stderr
