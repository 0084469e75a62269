"""nitransforms, by which fMRIPrep applies transforms, reads what a registration writes.

A pair of phantoms on grids that are oblique, anisotropic and LAS is registered once. The oracle is
nitransforms itself, in its own terms (RAS millimetres), against the map that jaxreg computed and
the moved image that it wrote.

What is peculiar to nitransforms 25.1, and why the comparisons are as they are:

* A field must have five axes (x, y, z, 1, 3) and is read with `fmt="itk"`; without it the vectors
  count as RAS, and the first two components have the wrong sign. No error is raised.
* Between voxel centres a field is interpolated by cubic splines, and ITK and jaxreg interpolate
  linearly; on voxel centres all agree. Beyond the field a point stays where it is, while jaxreg
  continues the field's edge.
* Images are cubic by default (`order=3`), 0 outside. jaxreg's are linear.
"""

import json
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from registration_data import motion, write_subject

from jaxreg.cli import main
from jaxreg.geometry.transforms import affine_points, map_points
from jaxreg.io.displacement_fields import read_field
from jaxreg.io.itk_transforms import read_transform, write_affine
from jaxreg.registration.apply import load_chain

pytest.importorskip("nitransforms", reason="nitransforms is in the extra `test`")
from nitransforms.linear import Affine  # noqa: E402
from nitransforms.linear import load as load_linear  # noqa: E402
from nitransforms.manip import TransformChain  # noqa: E402
from nitransforms.nonlinear import DenseFieldTransform  # noqa: E402
from nitransforms.nonlinear import load as load_field  # noqa: E402
from nitransforms.resampling import apply  # noqa: E402

FLAGS = (
    "--optimize-only",
    "--spacing=8",
    "--steps=3",
    "--lam=0.3",
    "--extract=never",
    "--init=rigid",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(fixed, moving, folder) of a registration; the fixed grid is LAS, the moving one oblique."""
    folder = tmp_path_factory.mktemp("nitransforms")
    fixed = write_subject(folder, 0, "T1w", axes="las", spacing_mm=(8, 6.5, 9))["image"]
    moving = write_subject(
        folder, 1, "T2w", axes="oblique", spacing_mm=(7, 9, 8), motion=motion(9, (5, -8, 6))
    )["image"]
    assert main(["register", str(fixed), str(moving), f"--out={folder / 'run'}", *FLAGS]) == 0
    return fixed, moving, folder / "run"


def centres(path):
    """Voxel centres of an image, RAS mm."""
    image = Nifti1Image.from_filename(path)
    voxels = np.indices(image.shape[:3]).reshape(3, -1).T.astype(float)
    return affine_points(np.asarray(image.affine), voxels)


@pytest.mark.parametrize("name", ["warp.nii.gz", "inverse_warp.nii.gz"])
def test_a_field_takes_points_to_the_same_places(run, name):
    path = run[2] / name
    transform, field = load_field(path, fmt="itk"), read_field(path)
    assert isinstance(transform, DenseFieldTransform)
    points = centres(path)
    expected = map_points([field], points)
    # nitransforms casts points to float32, which has digits of 1e-5 mm at 100 mm.
    assert np.abs(transform.map(points) - expected).max() < 1e-3
    assert np.linalg.norm(expected - points, axis=1).max() > 5  # they do move

    inside = affine_points(field.affine, np.random.default_rng(0).uniform(4, 12, (200, 3)))
    apart = np.linalg.norm(transform.map(inside) - map_points([field], inside), axis=1)
    assert apart.max() < 1  # cubic against linear on a grid of 8 mm


def test_the_field_read_as_ras_would_be_wrong(run):
    """So that the test above cannot pass by symmetry."""
    path = run[2] / "warp.nii.gz"
    points = centres(path)
    wrong = DenseFieldTransform(Nifti1Image.from_filename(path)).map(points)
    assert np.abs(wrong - map_points([read_field(path)], points)).max() > 5


@pytest.mark.parametrize("ending", [".mat", ".txt", ".tfm"])
def test_the_affine_is_the_same_matrix(run, tmp_path, ending):
    path = run[2] / "affine.mat"
    (matrix,) = read_transform(path)
    assert isinstance(matrix, np.ndarray)
    if ending != ".mat":
        path = tmp_path / f"affine{ending}"
        write_affine(path, matrix)
    transform = load_linear(path, fmt="itk")
    assert isinstance(transform, Affine)
    recorded = json.loads((run[2] / "provenance.json").read_text())["affine"]
    np.testing.assert_allclose(transform.matrix, recorded, atol=1e-6)
    points = centres(run[0])
    np.testing.assert_allclose(transform.map(points), affine_points(matrix, points), atol=1e-6)


def test_the_moved_image_is_the_same(run):
    fixed, moving, folder = run
    transform: Any = load_field(folder / "warp.nii.gz", fmt="itk")
    ours = Nifti1Image.from_filename(folder / "moved.nii.gz")
    theirs: Any = apply(
        transform, str(moving), reference=str(fixed), order=1, output_dtype=np.dtype(float)
    )
    assert np.allclose(np.asarray(theirs.affine), np.asarray(ours.affine), atol=1e-4)
    # Only where the map stays inside the moving image: beyond it both fill in their own way.
    image = Nifti1Image.from_filename(moving)
    there = transform.map(centres(fixed))
    voxels = affine_points(np.linalg.inv(np.asarray(image.affine)), there)
    inside = ((voxels >= 0) & (voxels <= np.array(image.shape) - 1)).all(axis=1)
    assert inside.mean() > 0.3
    apart = np.abs(np.asarray(theirs.dataobj).ravel() - ours.get_fdata().ravel())[inside]
    assert apart.max() < 0.5 and ours.get_fdata().max() > 500


def test_a_chain_has_the_same_order(run, tmp_path):
    """The first transform acts first on points, as in the list of files of `jaxreg apply`."""
    fixed, _, folder = run
    shift = np.eye(4)
    shift[:3, :3] = 1.1 * shift[:3, :3]
    shift[:3, 3] = 3.0, -2.0, 4.0
    write_affine(tmp_path / "second.txt", shift)
    files = [folder / "warp.nii.gz", tmp_path / "second.txt"]
    chain = TransformChain([load_field(files[0], fmt="itk"), load_linear(files[1], fmt="itk")])
    points = centres(fixed)
    assert np.abs(chain.map(points) - map_points(load_chain(files), points)).max() < 1e-3
