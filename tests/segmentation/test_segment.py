"""Finding a brain: poses, windows and grids against brains that lie in known places."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from jaxreg.data.label_codes import CLASSES, MIRRORED, NUMBERS, REST, decode
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.segmentation.brain import found_brain
from jaxreg.segmentation.own_grid import codes_on as codes_at_voxels
from jaxreg.segmentation.own_grid import on_own_grid
from jaxreg.segmentation.segment import (
    _window,
    _window_centres,
    farthest_mm,
    require_brain,
    template_pose,
    with_both_views,
)
from jaxreg.segmentation.template import CENTROIDS_MM, GRID


def template_codes() -> np.ndarray:
    """A ball at each structure's centroid in an ellipsoid of the rest of the brain."""
    at = np.stack(np.meshgrid(*map(np.arange, GRID.shape), indexing="ij"), axis=-1)
    mm = at @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]
    inside = (((mm - [0, -18, 0]) / [66, 84, 62]) ** 2).sum(axis=-1) < 1
    codes = np.where(inside, REST, 0).astype(np.uint8)
    for code, centre in enumerate(CENTROIDS_MM.values(), start=1):
        codes[((mm - centre) ** 2).sum(axis=-1) < 2.8**2] = code
    return codes


NOTHING = np.zeros(GRID.shape, np.float32)
"""What the network sees of an image does not matter here."""
CODES = template_codes()


def motion(angles: tuple[float, ...], shift: tuple[float, ...], scale=1.0) -> np.ndarray:
    """Template millimetres to the image's."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift
    return matrix


def codes_on(grid: Grid, true: np.ndarray) -> np.ndarray:
    """The codes of the template's brain, as `true` lays it, on a grid."""
    to_template = np.linalg.inv(GRID.affine) @ np.linalg.inv(true) @ grid.affine
    offset: Any = to_template[:3, 3]
    return ndimage.affine_transform(
        CODES, to_template[:3, :3], offset, output_shape=grid.shape, order=0
    )


def field_of_view(shape: tuple[int, int, int], spacing_mm: tuple[float, ...]) -> Grid:
    """A grid about the origin."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -np.array(spacing_mm) * (np.array(shape) - 1) / 2
    return Grid(shape, affine)


POSES = [
    ((0, 0, 0), (0, 0, 0), (2.0, 2.0, 2.0), (110, 120, 100)),
    ((90, 0, 0), (5, -8, 12), (2.0, 2.0, 2.0), (110, 120, 118)),
    ((175, 20, 160), (10, 5, -10), (1.5, 2.0, 2.5), (150, 120, 90)),
    ((-95, 10, 88), (0, 0, 40), (2.0, 2.0, 2.0), (110, 110, 190)),
]


@pytest.mark.parametrize(("angles", "shift", "spacing_mm", "shape"), POSES)
def test_the_pose_comes_from_the_centroids(angles, shift, spacing_mm, shape):
    true = motion(angles, shift, scale=0.97)
    grid = field_of_view(shape, spacing_mm)
    found, fit_mm = template_pose(codes_on(grid, true), grid.affine)
    assert farthest_mm(found, true) < 4.0  # centroids of a few voxels, carried to the far corners
    assert fit_mm < 1.0


def test_a_structure_in_the_wrong_place_does_not_turn_the_head():
    true = motion((20, -10, 30), (3, 2, 1))
    grid = field_of_view((110, 110, 110), (2.0, 2.0, 2.0))
    codes = codes_on(grid, true)
    hippocampus = 14
    codes[codes == hippocampus] = REST
    codes[5:11, 5:11, 5:11] = hippocampus
    found, _ = template_pose(codes, grid.affine)
    assert farthest_mm(found, true) < 4.0


@pytest.mark.parametrize(("angles", "shift", "spacing_mm", "shape"), POSES)
def test_labels_come_back_to_the_images_own_grid(angles, shift, spacing_mm, shape):
    true = motion(angles, shift, scale=0.97)
    grid = field_of_view(shape, spacing_mm)
    expected = codes_on(grid, true)
    probabilities = np.eye(CLASSES, dtype=np.float32)[CODES]
    image = Volume(np.zeros(shape, np.float32), grid.affine)
    labels, mask = on_own_grid(image, found_brain(probabilities, true, NOTHING, fit_mm=0.0))
    different = labels != decode(expected)
    assert different.mean() < 0.01  # linear votes and the nearest voxel differ at borders alone
    assert (mask != (expected > 0)).mean() < 0.005
    inside: Any = np.asarray(ndimage.binary_erosion(expected == REST, iterations=2))
    assert (labels[inside] == 24).all()


def test_the_coarse_window_is_a_mean_of_the_image_at_its_affine():
    rng = np.random.default_rng(0)
    grid = field_of_view((90, 100, 61), (1.5, 1.2, 3.0))
    smooth = ndimage.gaussian_filter(rng.normal(size=grid.shape), 8).astype(np.float32)
    values, affine = _window(Volume(smooth, grid.affine), (np.array(grid.shape) - 1) / 2)
    to_image = np.linalg.inv(grid.affine) @ affine
    offset: Any = to_image[:3, 3]
    expected = ndimage.affine_transform(
        smooth, to_image[:3, :3], offset, output_shape=values.shape, order=1
    )
    inside: Any = ndimage.affine_transform(
        np.ones_like(smooth), to_image[:3, :3], offset, output_shape=values.shape
    )
    inside = np.asarray(ndimage.binary_erosion(inside > 0.99, iterations=1))
    assert inside.sum() > 5000
    np.testing.assert_allclose(values[inside], expected[inside], atol=0.05 * smooth.std())


def test_a_long_field_of_view_is_looked_at_in_several_windows():
    grid = field_of_view((60, 60, 200), (2.0, 2.0, 2.0))
    image = Volume(np.zeros(grid.shape, np.float32), grid.affine)
    centres = np.array(_window_centres(image))
    assert centres[:, 2].min() * 2.0 <= 128 <= 400 - 128 <= centres[:, 2].max() * 2.0 + 2
    assert np.ptp(centres[:, :2], axis=0).max() == 0


def test_what_shows_no_brain_is_refused():
    empty = np.zeros((40, 40, 40), np.uint8)
    with pytest.raises(InputError, match="expected a brain"):
        template_pose(empty, np.eye(4))
    with pytest.raises(InputError, match="litres"):
        require_brain(0.0, 1.0)


def test_each_voxel_gets_what_scipy_reads_as_most_probable():
    """Of soft probabilities on an oblique grid; the mask is where the background has under half."""
    rng = np.random.default_rng(0)
    raw = rng.random((*CODES.shape, CLASSES)).astype(np.float32) + 3 * np.eye(CLASSES)[CODES]
    smooth = ndimage.gaussian_filter(raw, (1, 1, 1, 0)).astype(np.float32)
    probabilities = smooth / smooth.sum(axis=-1, keepdims=True)
    grid = field_of_view((70, 80, 50), (2.5, 2.2, 3.0))
    true = motion((4, -7, 10), (3, -5, 2), scale=0.97)
    codes, mask = codes_at_voxels(found_brain(probabilities, true, NOTHING, fit_mm=0.0), grid)
    to_template = np.linalg.inv(true @ GRID.affine) @ grid.affine
    points = np.argwhere(mask) @ to_template[:3, :3].T + to_template[:3, 3]
    read = np.stack(
        [
            ndimage.map_coordinates(probabilities[..., c], points.T, order=1, mode="grid-constant")
            for c in range(CLASSES)
        ]
    )
    assert mask.sum() > 10000
    assert (codes[~mask] == 0).all()
    best = 1 + np.argmax(read[1:], axis=0)
    equal = read[codes[mask], np.arange(len(best))] > read[best, np.arange(len(best))] - 1e-5
    assert equal.all()


def test_both_views_are_the_mean_of_two_answers():
    """A network that is certain of the left half of what it sees sees each half once."""
    left = int(np.flatnonzero(MIRRORED[:CLASSES] != np.arange(CLASSES))[0])

    def network(values: Any) -> Any:
        """The first half is a left structure, the other one is background."""
        half = np.arange(values.shape[0]) < values.shape[0] // 2
        answer = np.where(half[:, None, None], left, 0) * np.ones(values.shape[:3], int)
        return np.eye(CLASSES, dtype=np.float32)[answer]

    direct = network(NOTHING[..., None])
    brain, agreement = with_both_views(found_brain(direct, np.eye(4), NOTHING, fit_mm=0.0), network)
    assert agreement == 0  # the two halves have no structure in common
    assert brain.probabilities is not None
    first, last = brain.probabilities[0, 0, 0], brain.probabilities[-1, 0, 0]
    assert first[left] == last[MIRRORED[left]] == 0.5
    assert first[0] == last[0] == 0.5
    voxel_ml = abs(np.linalg.det(GRID.affine)) / 1000
    half_ml = 0.5 * (GRID.shape[0] // 2) * GRID.shape[1] * GRID.shape[2] * voxel_ml
    assert brain.volumes_ml[NUMBERS[left]] == pytest.approx(half_ml, rel=1e-3)
