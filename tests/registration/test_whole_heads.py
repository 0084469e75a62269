"""`jaxreg register` of whole heads: what is taken for the brain, and who decides it.

The heads are those of the ICBM template, at a quarter of its resolution; the T2w is turned.
"""

import json
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxreg import cli
from jaxreg.data.mni152 import find_mni152
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import affine_points
from jaxreg.io.images import read_image, write
from jaxreg.io.itk_transforms import read_transform
from jaxreg.models.segmentation_model import SHIPPED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_mni152() is None, reason="the template mni152 is not installed"),
]
STEP = 4
TURN = np.eye(4)
TURN[:3, :3] = Rotation.from_euler("xyz", (8, -10, 20), degrees=True).as_matrix()


def coarser(path):
    """A whole head of the template, each voxel the mean of `STEP` × `STEP` × `STEP` of its own."""
    head = read_image(path)
    x, y, z = (n // STEP for n in head.array.shape)
    blocks = head.array[: STEP * x, : STEP * y, : STEP * z]
    values = blocks.reshape(x, STEP, y, STEP, z, STEP).mean(axis=(1, 3, 5))
    larger = np.diag([STEP, STEP, STEP, 1.0])
    larger[:3, 3] = (STEP - 1) / 2
    return Volume(values.astype(np.float32), head.affine @ larger)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """The folder of head_T1w.nii.gz, head_T2w.nii.gz and mask.nii.gz, the true brain of the T1w."""
    files = find_mni152()
    assert files is not None
    folder = tmp_path_factory.mktemp("heads")
    for domain, turn in (("T1w", np.eye(4)), ("T2w", TURN)):
        head = coarser(files.images[domain])
        write(folder / f"head_{domain}.nii.gz", Volume(head.array, turn @ head.affine))
    mask = coarser(files.mask)
    write(folder / "mask.nii.gz", Volume((mask.array > 0.5).astype(np.float32), mask.affine))
    return folder


def load(path) -> np.ndarray:
    image: Any = nib.load(path)  # pyright: ignore[reportPrivateImportUsage]
    return image.get_fdata()


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def register(heads, out, *flags):
    images = [str(heads / f"head_{domain}.nii.gz") for domain in ("T1w", "T2w")]
    return cli.main(["register", *images, f"--out={out}", "--refine=2", "--json", *flags])


def test_brains_are_found_and_written_and_the_turn_is_undone(heads, tmp_path, capsys):
    assert register(heads, tmp_path / "out") == 0
    said = json.loads(capsys.readouterr().out)
    true = load(heads / "mask.nii.gz") > 0
    assert dice(load(tmp_path / "out" / "fixed_mask.nii.gz") > 0, true) > 0.93
    found = np.asarray(read_transform(tmp_path / "out" / "affine.mat")[0])
    points = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    apart = affine_points(found, points) - affine_points(TURN, points)
    assert np.linalg.norm(apart, axis=1).mean() < 3  # voxels have 4 mm
    assert said["estimated_dice"]["mean"] > 0.65 and said["verdict"]["state"] == "green"


def test_a_mask_that_is_given_wins(heads, tmp_path, capsys):
    masks = [f"--fixed-mask={heads / 'mask.nii.gz'}"]
    assert register(heads, tmp_path / "out", *masks, "--outputs=masks,moved") == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert "moving_mask.nii.gz" in written and "fixed_mask.nii.gz" not in written


def test_extraction_can_be_asked_for_and_switched_off(heads, tmp_path, capsys):
    image, mask = read_image(heads / "head_T1w.nii.gz"), read_image(heads / "mask.nii.gz")
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(heads / "head_T2w.nii.gz", cut / "head_T2w.nii.gz")
    brain = np.where(mask.array > 0, np.maximum(image.array, 1), 0)
    write(cut / "head_T1w.nii.gz", Volume(brain.astype(np.float32), image.affine))
    found = {}
    for extract in ("auto", "always", "never"):
        out = tmp_path / extract
        assert register(cut, out, f"--extract={extract}", "--outputs=masks,moved") == 0
        found[extract] = {p.name for p in out.iterdir() if p.name.endswith("_mask.nii.gz")}
        said = json.loads(capsys.readouterr().out)
        assert (said["estimated_dice"] is None) is (extract == "never")
    assert found["auto"] == {"moving_mask.nii.gz"}
    assert found["always"] == {"fixed_mask.nii.gz", "moving_mask.nii.gz"}
    assert found["never"] == set()


def test_a_folder_of_networks_does_what_the_bundled_ones_do(heads, tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "networks")
    flags = "--outputs=masks,moved"
    assert register(heads, tmp_path / "own", flags, f"--segmentation={tmp_path / 'networks'}") == 0
    assert register(heads, tmp_path / "bundled", flags) == 0
    for name in ("fixed_mask.nii.gz", "moved.nii.gz"):
        own, bundled = ((tmp_path / run / name).read_bytes() for run in ("own", "bundled"))
        assert own == bundled


def test_a_head_without_a_brain_is_refused_with_the_reason(heads, tmp_path, capsys):
    image, other = read_image(heads / "head_T1w.nii.gz"), tmp_path / "other"
    other.mkdir()
    shutil.copy(heads / "head_T2w.nii.gz", other / "head_T2w.nii.gz")
    noise = np.random.default_rng(0).gamma(2, 50, image.array.shape).astype(np.float32)
    write(other / "head_T1w.nii.gz", Volume(noise, image.affine))
    assert register(other, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "head_T1w.nii.gz" in said and "--fixed-mask" in said and "--extract never" in said
    assert not any(path.name.endswith(".nii.gz") for path in tmp_path.glob("out/*"))
