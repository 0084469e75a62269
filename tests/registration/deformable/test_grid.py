"""The network grid: the training grid laid onto the fixed brain, or a grid around that."""

import jax.numpy as jnp
import numpy as np
import pytest
from registration_data import example_subject, motion, write_subject

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.training import RegistrationConfig
from jaxreg.data.intensities import normalize
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import affine_points
from jaxreg.io.images import read_image
from jaxreg.models.model import Model
from jaxreg.registration.deformable import grid as grid_module
from jaxreg.registration.deformable.grid import (
    MARGIN_MM,
    MULTIPLE,
    grid_around,
    in_millimetres,
    network_grid,
    on_grid,
    one_side,
)
from jaxreg.registration.deformable.method import load_method
from jaxreg.registration.inputs import read_subject

ROLES = (("fixed", 1, "T1w"), ("moving", 2, "T2w"))


def box(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize("spacing_mm", [2.0, 3.0])
def test_the_grid_surrounds_the_mask_along_the_images_axes(spacing_mm):
    affine = motion(25, (10, -20, 5)) @ np.diag([1.5, 2.0, 1.0, 1.0])
    image = Volume(np.zeros((60, 50, 90), np.float32), affine)
    mask = box(image.array.shape, (3, 10, 20), (55, 45, 80))
    grid = grid_around(image, mask, (spacing_mm,) * 3)
    step = grid.affine[:3, :3]
    np.testing.assert_allclose(step.T @ step, spacing_mm**2 * np.eye(3), atol=1e-9)
    np.testing.assert_allclose(
        step / spacing_mm, affine[:3, :3] / np.array([1.5, 2.0, 1.0]), atol=1e-9
    )
    assert all(n % MULTIPLE == 0 for n in grid.shape)
    brain = affine_points(np.linalg.inv(grid.affine) @ affine, np.argwhere(mask).astype(float))
    margin = MARGIN_MM / spacing_mm - 1  # less the half voxel of either grid
    assert (brain.min(axis=0) >= margin).all()
    assert (brain.max(axis=0) <= np.array(grid.shape) - 1 - margin).all()


def test_an_image_of_the_training_spacing_keeps_its_voxels(tmp_path):
    paths = write_subject(tmp_path, 1, "T1w")
    subject = read_subject("fixed", paths["image"])
    grid = grid_around(subject.image, subject.mask, (8.0, 8.0, 8.0))
    pair = on_grid(subject, subject, np.eye(4), grid)
    image = read_image(paths["image"])
    wanted = normalize(image.array, subject.mask)
    start = np.linalg.inv(image.affine) @ grid.affine[:, 3]
    np.testing.assert_allclose(start[:3], np.round(start[:3]), atol=1e-5)
    padded = np.pad(wanted, 40)
    first = np.round(start[:3]).astype(int) + 40
    slices = tuple(slice(a, a + n) for a, n in zip(first, grid.shape, strict=True))
    np.testing.assert_allclose(np.asarray(pair.fixed)[..., 0], padded[slices], atol=1e-4)
    np.testing.assert_array_equal(pair.fixed, pair.moving)


def test_the_affine_brings_the_moving_image_onto_the_fixed_one(tmp_path):
    moved = motion(9, (12, -30, 21))
    folders = tmp_path / "fixed", tmp_path / "moving"
    for folder in folders:
        folder.mkdir()
    fixed = write_subject(folders[0], 1, "T1w")
    moving = write_subject(folders[1], 1, "T1w", axes="psl", motion=moved)
    sides = [read_subject(r, s["image"]) for r, s in (("fixed", fixed), ("moving", moving))]
    grid = grid_around(sides[0].image, sides[0].mask, (8.0, 8.0, 8.0))
    pair = on_grid(sides[0], sides[1], moved, grid)
    # a half voxel apart along two axes and interpolated twice: 0.03 of [0, 1] in the mean
    assert float(jnp.abs(pair.fixed - pair.moving)[pair.fixed_mask].mean()) < 0.06
    away = motion(0, (900, 0, 0))
    with pytest.raises(InputError, match="lies off the fixed one"):
        on_grid(sides[0], sides[1], away, grid)


def test_a_displacement_in_voxels_becomes_millimetres_along_the_axes():
    image = Volume(np.zeros((20, 20, 20), np.float32), motion(30, (0, 0, 0)))
    grid = grid_around(image, box((20, 20, 20), (5, 5, 5), (15, 15, 15)), (2.0, 2.0, 2.0))
    u = np.zeros((*grid.shape, 3), np.float32)
    u[..., 1] = 3
    field = in_millimetres(u, grid)
    np.testing.assert_allclose(field.vectors[4, 4, 4], 6 * image.affine[:3, 1], rtol=1e-5)


def bytes_of(index, domain="T1w"):
    """A phantom as training writes a template: bytes, 0 outside the brain."""
    subject, affine = example_subject(index)
    stored = np.clip(np.rint(200 * subject.images[domain]), 1, 255)
    return Volume(np.where(subject.labels > 0, stored, 0).astype(np.uint8), affine)


@pytest.fixture(scope="module")
def method():
    """A method whose network was trained around the phantom 1."""
    method = load_method(RegisterConfig(optimize_only=True, spacing=8.0))
    spacing_mm = (8.0, 8.0, 8.0)
    model = Model(RegistrationConfig(), {}, {}, 1, spacing_mm, template=bytes_of(1))
    return method._replace(model=model)


def subject_of(paths, *, mask=True):
    return read_subject("fixed", paths["image"], mask=paths["mask"] if mask else None)


def test_an_image_on_the_training_grid_keeps_it(tmp_path, method):
    subject = subject_of(write_subject(tmp_path, 2, "T1w"))
    template = method.model.template
    on_it = subject._replace(image=template, mask=template.array > 0)
    grid, how = network_grid(method, on_it)
    assert grid.shape == template.array.shape
    np.testing.assert_array_equal(grid.affine, template.affine)
    assert how == "the fixed image's, which is that of the network's training"


@pytest.mark.parametrize("domain", ["T1w", "T2w"])
def test_the_training_grid_is_laid_onto_a_brain_wherever_it_lies(tmp_path, method, domain):
    """Turned by 20° and 400 mm away: the fields of view of template and image do not meet."""
    moved = motion(20, (400, -30, 25))
    paths = write_subject(tmp_path, 1, domain, axes="psl", spacing_mm=(6.0, 5.0, 7.0), motion=moved)
    subject = subject_of(paths)
    template = method.model.template
    grid, how = network_grid(method, subject)
    assert how.startswith("that of the network's training, laid onto the fixed brain")
    assert grid.shape == template.array.shape
    brain = np.argwhere(template.array > 0).astype(float)
    wanted = affine_points(moved @ template.affine, brain)
    apart = np.linalg.norm(affine_points(grid.affine, brain) - wanted, axis=1)
    assert apart.mean() < 4  # half a voxel
    image, mask, _ = one_side(subject, np.eye(4), grid)
    own = example_subject(1)[0].images[domain]
    both = (template.array > 0) & np.asarray(mask)
    assert np.corrcoef(np.asarray(image)[..., 0][both], own[both])[0, 1] > 0.8


def test_without_template_or_brain_the_grid_surrounds_what_is_fixed(tmp_path, method):
    paths = write_subject(tmp_path, 1, "T1w", motion=motion(20, (0, 0, 0)))
    subject = subject_of(paths)
    untold = method._replace(model=method.model._replace(template=None))
    grid, how = network_grid(untold, subject)
    assert how == "around the fixed brain"
    head = subject._replace(brain_known=False)
    other, how = network_grid(method, head)
    assert how == "around the head"
    np.testing.assert_array_equal(grid.affine, other.affine)


@pytest.mark.slow
def test_a_brain_that_the_template_does_not_fit_is_surrounded(tmp_path, method):
    """Three times its size: no head differs so much, and the training grid does not hold it."""
    subject = subject_of(write_subject(tmp_path, 1, "T1w"))
    large = Volume(subject.image.array, np.diag([3.0, 3.0, 3.0, 1.0]) @ subject.image.affine)
    grid, how = network_grid(method, subject._replace(image=large))
    assert how == "around the fixed brain, which fits the network's template nowhere"
    assert np.prod(grid.shape) > 8 * method.model.template.array.size


def test_of_two_maps_the_one_of_higher_correlation_counts(tmp_path, method, monkeypatch):
    subject = subject_of(write_subject(tmp_path, 1, "T1w", motion=motion(15, (5, 0, 0))))
    calls = []

    def found(fixed, moving, *, mode, **others):
        calls.append(mode)
        return motion(15, (5, 0, 0)) if mode == good else motion(15, (45, 0, 0))

    monkeypatch.setattr("jaxreg.registration.deformable.grid.register_affine", found)
    monkeypatch.setattr(
        "jaxreg.registration.deformable.grid._centre", lambda affine, mask: np.zeros(3)
    )
    for good in ("affine", "rigid"):
        grid, how = network_grid(method, subject)
        assert how.endswith(f"({good})")
        wanted = motion(15, (5, 0, 0)) @ method.model.template.affine
        np.testing.assert_allclose(grid.affine, wanted)
    assert calls == ["rigid", "affine"] * 2


def test_each_image_comes_onto_the_grid_once_for_each_place(tmp_path, monkeypatch):
    """Of three linear starts the fixed image is resampled once, the moving one three times."""
    fixed, moving = (read_subject(r, write_subject(tmp_path, i, d)["image"]) for r, i, d in ROLES)
    grid = grid_around(fixed.image, fixed.mask, (8.0, 8.0, 8.0))
    seen = []
    resample = grid_module.normalized_on_grid
    monkeypatch.setattr(
        grid_module,
        "normalized_on_grid",
        lambda image, *rest, **more: seen.append(id(image)) or resample(image, *rest, **more),
    )
    starts = {name: motion(angle, (0, 0, 0)) for name, angle in (("a", 0), ("b", 5), ("c", 9))}
    found = dict(grid_module.pairs_on_grid(fixed, moving, starts, grid))
    assert [seen.count(id(side.image)) for side in (fixed, moving)] == [1, 3]
    for name, matrix in starts.items():
        pair = on_grid(fixed, moving, matrix, grid)
        same = found[name]
        assert not isinstance(same, InputError)
        np.testing.assert_array_equal(same.moving, pair.moving)
        np.testing.assert_array_equal(same.fixed, pair.fixed)
