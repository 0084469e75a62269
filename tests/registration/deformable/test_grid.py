"""The network grid: the fixed image's own voxels where it can be, and a map that ends at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registration_data import motion, write_person

from jaxreg.data.intensities import normalize
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import affine_points
from jaxreg.io.images import read_image
from jaxreg.registration.deformable.grid import (
    MARGIN_MM,
    MULTIPLE,
    in_millimetres,
    network_grid,
    on_grid,
    taper,
)
from jaxreg.registration.inputs import read_subject
from jaxreg.spatial import displacement_of


def box(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize("spacing_mm", [2.0, 3.0])
def test_the_grid_surrounds_the_mask_along_the_images_axes(spacing_mm):
    affine = motion(25, (10, -20, 5)) @ np.diag([1.5, 2.0, 1.0, 1.0])
    image = Volume(np.zeros((60, 50, 90), np.float32), affine)
    mask = box(image.array.shape, (3, 10, 20), (55, 45, 80))
    grid = network_grid(image, mask, (spacing_mm,) * 3)
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
    paths = write_person(tmp_path, 1, "T1w")
    subject = read_subject("fixed", paths["image"])
    grid = network_grid(subject.image, subject.mask, (8.0, 8.0, 8.0))
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
    fixed = write_person(folders[0], 1, "T1w")
    moving = write_person(folders[1], 1, "T1w", axes="psl", motion=moved)
    sides = [read_subject(r, s["image"]) for r, s in (("fixed", fixed), ("moving", moving))]
    grid = network_grid(sides[0].image, sides[0].mask, (8.0, 8.0, 8.0))
    pair = on_grid(sides[0], sides[1], moved, grid)
    # a half voxel apart along two axes and interpolated twice: 0.03 of [0, 1] in the mean
    assert float(jnp.abs(pair.fixed - pair.moving)[pair.fixed_mask].mean()) < 0.06
    away = motion(0, (900, 0, 0))
    with pytest.raises(InputError, match="lies off the fixed one"):
        on_grid(sides[0], sides[1], away, grid)


def test_a_tapered_map_ends_at_zero_and_keeps_the_inside():
    velocity = jax.random.normal(jax.random.key(0), (12, 10, 14, 3))
    tapered = jax.jit(taper)(velocity)
    np.testing.assert_array_equal(tapered[2:-2, 2:-2, 2:-2], velocity[2:-2, 2:-2, 2:-2])
    u = np.asarray(displacement_of(tapered, (24, 20, 28), squarings=7))
    for axis in range(3):
        for side in (0, -1):
            assert np.abs(np.take(u, side, axis=axis)).max() == 0
    np.testing.assert_allclose(tapered[1, 5, 5], velocity[1, 5, 5] / 2, rtol=1e-6)


def test_a_displacement_in_voxels_becomes_millimetres_along_the_axes():
    image = Volume(np.zeros((20, 20, 20), np.float32), motion(30, (0, 0, 0)))
    grid = network_grid(image, box((20, 20, 20), (5, 5, 5), (15, 15, 15)), (2.0, 2.0, 2.0))
    u = np.zeros((*grid.shape, 3), np.float32)
    u[..., 1] = 3
    field = in_millimetres(u, grid)
    np.testing.assert_allclose(field.vectors[4, 4, 4], 6 * image.affine[:3, 1], rtol=1e-5)
