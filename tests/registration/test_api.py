"""`jaxreg.register` from Python: every kind of input, and the example in the documentation."""

import dataclasses
import hashlib
import inspect
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import docstring_examples
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Image
from registration_data import motion, same_but_for_timings, write_subject

import jaxreg
from jaxreg.cli import main
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import InputError
from jaxreg.geometry.transforms import map_points
from jaxreg.io.displacement_fields import read_field
from jaxreg.registration.apply import Applied
from jaxreg.registration.result import Result

SETTINGS = {"optimize_only": True, "spacing": 8.0, "steps": 3, "init": "none", "lam": 0.5}


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    fixed = write_subject(folder, 1, "T1w", axes="las")
    moving = write_subject(folder, 2, "T2w", axes="oblique", motion=motion(3, (4, -2, 3)))
    return fixed, moving


@pytest.fixture(scope="module")
def result(pair):
    fixed, moving = pair
    return jaxreg.register(
        fixed["image"], moving["image"], moving_labels=moving["labels"], **SETTINGS
    )


def test_paths_images_and_arrays_give_the_same(pair, result):
    fixed, moving = (load(side["image"]) for side in pair)
    as_images = jaxreg.register(fixed, moving, **SETTINGS)
    arrays = [(np.asarray(i.dataobj), i.affine) for i in (fixed, moving)]
    as_arrays = jaxreg.register(*arrays, **SETTINGS)
    for other in (as_images, as_arrays):
        np.testing.assert_array_equal(other.moved.get_fdata(), result.moved.get_fdata())
        assert other.metrics["similarity"] == result.metrics["similarity"]


def test_the_verdict_is_that_of_the_command(result, tmp_path):
    provenance = json.loads((result.save(tmp_path / "run") / "provenance.json").read_text())
    assert result.verdict.state in ("green", "amber", "red")
    assert provenance["verdict"] == {
        "state": result.verdict.state,
        "reasons": list(result.verdict.reasons),
    }


def test_a_matrix_is_the_start_that_its_file_is(pair, result, tmp_path):
    """From a file that another program wrote: ITK's LPS, fixed to moving."""
    images = [side["image"] for side in pair]
    matrix = motion(3, (4, -2, 3))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    turned = lps @ matrix @ lps
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(turned[:3, :3].ravel().tolist())
    transform.SetTranslation(turned[:3, 3].tolist())
    sitk.WriteTransform(transform, str(tmp_path / "start.tfm"))
    by_file = jaxreg.register(*images, **{**SETTINGS, "init": tmp_path / "start.tfm"})
    by_matrix = jaxreg.register(*images, **{**SETTINGS, "init": matrix.tolist()})
    np.testing.assert_allclose(by_matrix.transform.chain[-1], matrix, atol=1e-12)
    np.testing.assert_allclose(by_file.transform.chain[-1], matrix, atol=1e-6)
    np.testing.assert_allclose(
        by_matrix.moved.get_fdata(), by_file.moved.get_fdata(), atol=0.5
    )  # of 0 … 1000
    assert np.abs(by_matrix.moved.get_fdata() - result.moved.get_fdata()).max() > 50
    folder = by_matrix.save(tmp_path / "saved")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["command"]["init"] == "matrix [4, 4]"
    np.testing.assert_allclose(provenance["affine"], matrix)


@pytest.mark.parametrize("matrix", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_a_start_that_is_no_affine_is_refused(pair, matrix):
    with pytest.raises(InputError, match=r"^init: expected"):
        jaxreg.register(pair[0]["image"], pair[1]["image"], **{**SETTINGS, "init": matrix})


def test_a_rigid_registration_reads_no_matrix(pair):
    images = [side["image"] for side in pair]
    with pytest.raises(InputError, match=r"^init: not read with transform"):
        jaxreg.register(*images, transform="rigid", init=np.eye(4))


def test_the_transform_repeats_moved_and_its_inverse_leads_back(pair, result):
    fixed, moving = pair
    again = result.transform.apply(moving["image"])
    # the warp is composed in float32 for `moved`; of 0 … 1000
    np.testing.assert_allclose(again.get_fdata(), result.moved.get_fdata(), atol=0.5)
    labels = result.transform.apply(moving["labels"], labels=True)
    same = labels.get_fdata() == result.moved_labels.get_fdata()
    assert same.mean() > 0.999 and labels.get_data_dtype().kind == "u"
    back = result.transform.inverse.apply(fixed["image"])
    assert back.shape == load(moving["image"]).shape
    points = np.random.default_rng(0).uniform(-40, 40, (50, 3))
    there = result.transform.inverse.apply_points(points)
    np.testing.assert_allclose(result.transform.apply_points(there), points, atol=1.0)


def test_a_saved_transform_is_the_whole_map(result, tmp_path):
    result.transform.save(tmp_path / "warp.nii.gz")
    field = read_field(tmp_path / "warp.nii.gz")
    points = field.affine[:3, 3] + np.array([[-70.0, 80.0, 75.0]])
    np.testing.assert_allclose(
        map_points([field], points), map_points(result.transform.chain, points), atol=0.5
    )
    with pytest.raises(InputError, match="linear"):
        result.transform.save(tmp_path / "warp.mat")


@pytest.mark.parametrize(
    ("fixed", "settings", "message"),
    [
        (3, {}, "fixed: expected a path, a NIfTI image"),
        ((np.zeros((4, 4, 4)), np.eye(3)), {}, "affine of shape"),
        ("absent.nii", {}, "no such file"),
        ("absent.nii", {"lam": 2.0}, "^lam: expected a number"),
        (
            "absent.nii",
            {"optimize_only": True, "refine": 2},
            "^refine: not read with optimize_only",
        ),
    ],
)
def test_unusable_arguments_are_refused(pair, fixed, settings, message):
    with pytest.raises(InputError, match=message):
        jaxreg.register(fixed, pair[1]["image"], **{**SETTINGS, **settings})


def test_the_arguments_are_the_settings_with_their_defaults():
    config = {f.name: f.default for f in dataclasses.fields(RegisterConfig)}
    parameters = inspect.signature(jaxreg.register).parameters.values()
    given = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert given.pop("say") is None
    assert given == config
    swept = inspect.signature(jaxreg.sweep).parameters
    one_map = {"lam", "transform", "same_subject", "halfway", "also"}
    assert set(swept) == {"fixed", "moving", "say", *config} - one_map


def test_saving_writes_what_the_command_writes(pair, result, tmp_path):
    fixed, moving = pair
    flags = ["--optimize-only", "--spacing=8", "--steps=3", "--init=none", "--lam=0.5"]
    labels = f"--moving-labels={moving['labels']}"
    argv = ["register", str(fixed["image"]), str(moving["image"]), *flags, labels]
    assert main([*argv, f"--out={tmp_path / 'command'}", "--quiet"]) == 0
    assert result.save(tmp_path / "python") == tmp_path / "python"
    assert same_but_for_timings(tmp_path / "command", tmp_path / "python") == 9
    with pytest.raises(InputError, match="overwrite"):
        result.save(tmp_path / "python")
    result.save(tmp_path / "python", overwrite=True)


def test_what_no_file_holds_is_named_after_its_argument(pair, result, tmp_path):
    """The same images from memory: only names and hashes of the inputs differ."""
    fixed, moving = (load(side["image"]) for side in pair)
    labels = load(pair[1]["labels"])
    from_memory = jaxreg.register(fixed, moving, moving_labels=labels, **SETTINGS)
    there, here = result.save(tmp_path / "files"), from_memory.save(tmp_path / "memory")
    named = {"provenance.json", "report.html", "timings.json"}
    for path in there.iterdir():
        if path.name not in named:
            assert path.read_bytes() == (here / path.name).read_bytes(), path.name
    record = json.loads((here / "provenance.json").read_text())
    assert record["command"]["moving_labels"] == "moving_labels"
    image = record["fixed"]["files"]["image"]
    nifti = Nifti1Image.from_image(fixed).to_bytes()
    assert image == {"path": "fixed", "sha256": hashlib.sha256(nifti).hexdigest()}


def test_apply_takes_results_matrices_and_arrays(pair, result, tmp_path):
    fixed, moving = (load(side["image"]) for side in pair)
    folder = result.save(tmp_path / "run")
    by_result = jaxreg.apply(result.transform, image=moving, reference=fixed)
    by_file = jaxreg.apply(folder / "warp.nii.gz", image=pair[1]["image"], reference=fixed)
    # the warp in the file is float32; intensities of 0 … 1000
    np.testing.assert_allclose(by_result.image.get_fdata(), by_file.image.get_fdata(), atol=0.5)
    shift = np.eye(4)
    shift[0, 3] = 4.0  # fixed x + 4 = moving x, and points go from moving to fixed
    there: Any = jaxreg.apply([shift, shift], points=[[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(there.points, [[-7.0, 2.0, 3.0]])
    back: Any = jaxreg.apply(shift, points=there.points, inverse=True)
    np.testing.assert_allclose(back.points, [[-3.0, 2.0, 3.0]])
    assert there.save(tmp_path / "points.csv").read_text().splitlines()[1].startswith("-7.0")


def test_apply_writes_what_the_command_writes(pair, result, tmp_path):
    folder = result.save(tmp_path / "run")
    images = {"image": pair[1]["image"], "reference": pair[0]["image"]}
    argv = ["apply", str(folder / "warp.nii.gz"), *(f"--{k}={v}" for k, v in images.items())]
    assert main([*argv, f"--out={tmp_path / 'command.nii.gz'}"]) == 0
    jaxreg.apply(folder / "warp.nii.gz", **images).save(tmp_path / "python.nii.gz")
    assert (tmp_path / "command.nii.gz").read_bytes() == (tmp_path / "python.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("transforms", "arguments", "message"),
    [
        ([], {"points": [[0, 0, 0]]}, "at least one file"),
        (np.eye(3), {"points": [[0, 0, 0]]}, "matrices"),
        (np.eye(4), {}, "expected one of image, labels, points"),
        (np.eye(4), {"points": [[0, 0]]}, r"points: expected finite numbers \[n, 3\]"),
        (np.eye(4), {"points": [["a", 0, 0]]}, "points: expected numbers"),
        (np.eye(4), {"image": "t1.nii"}, "^reference: expected"),
        (np.diag([1.0, 1, 1, 2]), {"points": [[0, 0, 0]]}, "transforms: .* invertible affine"),
        (np.diag([1.0, 1, np.nan, 1]), {"points": [[0, 0, 0]]}, "transforms: .* got .*nan"),
        ([np.diag([1.0, 1, 0, 1])], {"points": [[0, 0, 0]]}, "transforms: .* invertible affine"),
    ],
)
def test_apply_refuses_in_words_of_its_arguments(transforms, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        jaxreg.apply(transforms, **arguments)
    assert "--" not in str(caught.value)


def run_examples(functions, pair, folder, monkeypatch):
    """Run examples one after the other in a folder with the images that they name."""
    monkeypatch.chdir(folder)
    for name, side in (("fixed_T1w", pair[0]), ("moving_T2w", pair[1])):
        Path(f"{name}.nii.gz").write_bytes(side["image"].read_bytes())
    Path("scans.tsv").write_text("participant_id\tT1w\none\tfixed_T1w.nii.gz\n")
    for function in functions:
        docstring_examples.run_examples(function)


def test_the_examples_of_the_docstrings_run(pair, tmp_path, monkeypatch):
    functions = [Result.save, jaxreg.apply, Applied.save, jaxreg.convert, jaxreg.load_model]
    run_examples(functions, pair, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "function", [jaxreg.register, jaxreg.sweep, jaxreg.prepare, jaxreg.compare]
)
def test_the_longer_examples_run(function, pair, tmp_path, monkeypatch):
    run_examples([function], pair, tmp_path, monkeypatch)


def test_importing_jaxreg_is_cheap_and_changes_nothing():
    code = (
        "import os, sys; before = dict(os.environ); import jaxreg;"
        "assert dict(os.environ) == before;"
        "assert not {'jax', 'numpy', 'nibabel', 'SimpleITK'} & set(sys.modules)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's threads here, and a fork
        subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2]
        )


@pytest.mark.slow
def test_the_examples_in_the_documentation_run(pair, tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs" / "register.md").read_text(
        encoding="utf-8"
    )
    example = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    for name, side in (("fixed_T1w", pair[0]), ("moving_T2w", pair[1])):
        Path(f"{name}.nii.gz").write_bytes(side["image"].read_bytes())
    shorter = example.replace('"moving_T2w.nii.gz")', '"moving_T2w.nii.gz", refine=1)')
    assert shorter != example
    scope: dict[str, Any] = {}
    exec(shorter, scope)
    assert scope["landmarks"].shape == (1, 3)
    names = ("moved.nii.gz", "warp.nii.gz", "warp_fsl.nii.gz", "DIR/report.html")
    assert all(Path(name).is_file() for name in names)
