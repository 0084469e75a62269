"""`jaxreg.register` from Python: every kind of input, and the example in the documentation."""

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from registration_data import motion, write_person

import jaxreg
from jaxreg.errors import InputError
from jaxreg.geometry.transforms import map_points
from jaxreg.io.displacement_fields import read_field

SETTINGS = {"optimize_only": True, "spacing": 8.0, "steps": 3, "init": "none", "lam": 0.5}


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    fixed = write_person(folder, 1, "T1w", axes="las")
    moving = write_person(folder, 2, "T2w", axes="oblique", motion=motion(3, (4, -2, 3)))
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
def test_the_example_in_the_documentation_runs(pair, tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs" / "register.md").read_text(
        encoding="utf-8"
    )
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name, side in (("fixed_T1w", pair[0]), ("moving_T2w", pair[1])):
        Path(f"{name}.nii.gz").write_bytes(side["image"].read_bytes())
    shorter = example.replace('"moving_T2w.nii.gz")', '"moving_T2w.nii.gz", refine=1)')
    assert shorter != example
    scope: dict[str, Any] = {}
    exec(shorter, scope)
    assert scope["landmarks"].shape == (1, 3)
    assert Path("moved.nii.gz").is_file() and Path("warp.nii.gz").is_file()
