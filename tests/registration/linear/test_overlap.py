"""The affine by the overlap of structures: against SciPy, and against maps that are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from jaxreg.data.label_codes import CLASSES, REST
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.registration.inputs import Subject
from jaxreg.registration.linear import starts
from jaxreg.registration.linear.overlap import _STRUCTURES, Overlap, overlap_between
from jaxreg.segmentation.brain import found_brain
from jaxreg.segmentation.segment import farthest_mm
from jaxreg.segmentation.template import CENTROIDS_MM, FEWEST_STRUCTURES, GRID


def voxels_mm() -> np.ndarray:
    """Template millimetres of each voxel of the template grid."""
    at = np.moveaxis(np.indices(GRID.shape), 0, -1)
    return at @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]


def template_codes() -> np.ndarray:
    """In an ellipsoid, each structure is what lies nearest to its centroid."""
    mm = voxels_mm()
    inside = (((mm - [0, -18, 0]) / [66, 84, 62]) ** 2).sum(axis=-1) < 1
    distances = [((mm - centre) ** 2).sum(axis=-1) for centre in CENTROIDS_MM.values()]
    nearest = 1 + np.argmin(distances, axis=0)
    return np.where(inside & (np.min(distances, axis=0) < 25**2), nearest, 0).astype(np.uint8)


CODES = template_codes()
BETWEEN = np.eye(4)
BETWEEN[:3, :3] = Rotation.from_euler("xyz", (2, -1, 3), degrees=True).as_matrix() * [1.03, 0.98, 1]
BETWEEN[:3, 3] = 2.0, -1.0, 2.0
"""Template millimetres of the fixed brain to those of the moving one."""
TURNED = np.eye(4)
TURNED[:3, :3] = Rotation.from_euler("xyz", (80, 10, -5), degrees=True).as_matrix()
TURNED[:3, 3] = 12, -7, 30
"""How the moving head lies in its scanner."""


def under(matrix: np.ndarray) -> np.ndarray:
    """The codes of a brain that an affine of template millimetres has moved."""
    back = np.linalg.inv(GRID.affine) @ np.linalg.inv(matrix) @ GRID.affine
    offset: Any = back[:3, 3]
    return ndimage.affine_transform(CODES, back[:3, :3], offset, order=0)


def side(codes: np.ndarray, to_image: np.ndarray, grid: Grid) -> Subject:
    """An image whose brain was found so."""
    probabilities = np.eye(CLASSES, dtype=np.float32)[codes]
    brain = found_brain(probabilities, to_image, np.zeros(GRID.shape, np.float32), fit_mm=0.0)
    image = Volume(np.zeros(grid.shape, np.float32), grid.affine)
    mask = np.ones(grid.shape, bool)
    header: Any = None
    return Subject(Path(), header, image, mask, True, None, None, {}, (), (), brain=brain)


def pair(*, fixed: Grid = GRID) -> tuple[Subject, Subject]:
    """A fixed brain, and the same brain in another shape and place."""
    moving = Grid(GRID.shape, TURNED @ GRID.affine)
    return side(CODES, np.eye(4), fixed), side(under(BETWEEN), TURNED, moving)


def overlap(fixed: Subject, moving: Subject) -> Overlap:
    """The overlap of two sides with brains."""
    found = overlap_between(fixed, moving)
    assert found is not None
    return found


def test_the_dice_is_what_scipy_reads_at_the_same_points():
    between = overlap(*pair())
    matrix = TURNED @ BETWEEN @ np.diag([1.02, 0.99, 1.01, 1.0])
    there = np.linalg.inv(between.moving.affine) @ matrix @ between.fixed.affine
    expected = []
    for code in range(1, _STRUCTURES + 1):
        points = between.points[code - 1] @ there[:3, :3].T + there[:3, 3]
        same = ndimage.map_coordinates(
            (between.codes == code).astype(float), points.T, order=1, mode="constant"
        )
        fixed, moved = (CODES == code).sum(), (between.codes == code).sum()
        moved = moved / np.linalg.det(there[:3, :3])
        expected.append(2 * same.mean() * fixed / (fixed + moved))
    assert between.dice(matrix) == pytest.approx(np.mean(expected), abs=1e-5)


def test_the_points_lie_in_their_structures():
    points = overlap(*pair()).points
    at = np.rint(points).astype(int)
    found = CODES[at[..., 0], at[..., 1], at[..., 2]]
    assert (found[:_STRUCTURES] == np.arange(1, _STRUCTURES + 1)[:, None]).all()
    assert (found[_STRUCTURES:] > 0).all()
    assert len(np.unique(found[_STRUCTURES:])) == _STRUCTURES
    assert np.abs(points - at).max() > 0.45  # not voxel centres alone, which favour equal grids


def test_a_known_affine_is_found():
    between = overlap(*pair())
    found, true = between.best_affine(), TURNED @ BETWEEN
    assert farthest_mm(TURNED, true) > 5  # where the descent begins
    assert farthest_mm(found, true) < 0.5
    assert between.dice(found) > 0.9 > between.dice(TURNED) + 0.1  # reading between voxels blurs
    assert found.tobytes() == overlap(*pair()).best_affine().tobytes()


def test_structures_that_the_field_of_view_cuts_do_not_count():
    """A slab that lacks what lies above 20 mm: nothing of it is stretched to fill the gap."""
    slab = Grid((*GRID.shape[:2], 46), GRID.affine)
    codes = CODES.copy()
    codes[..., 46:] = 0
    _, moving = pair()
    cut = overlap(side(codes, np.eye(4), slab), moving)
    reaching = np.unique(CODES[..., 46:])
    left_out = 1 + np.flatnonzero(~cut.counts[:_STRUCTURES])
    assert 0 < len(left_out) < 16
    assert not cut.counts[_STRUCTURES:].any()
    assert set(left_out) <= set(reaching)
    assert farthest_mm(cut.best_affine(), TURNED @ BETWEEN) < 1.0
    assert not cut.whole


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_a_part_that_one_brain_lacks_stretches_nothing(role):
    """The lower part is lost within the field of view, and what it cut does not count."""
    whole = side(CODES, np.eye(4), GRID), side(under(BETWEEN), TURNED, GRID)
    assert overlap(*whole).whole
    sides = dict(zip(("fixed", "moving"), whole, strict=True))
    brain = sides[role].brain
    assert brain is not None
    codes = brain.codes.copy()
    codes[..., :28] = 0
    sides[role] = side(codes, brain.to_image, GRID)
    lost = overlap(**sides)
    assert not lost.whole
    assert FEWEST_STRUCTURES <= lost.counts.sum() < _STRUCTURES - 5
    true = TURNED @ BETWEEN
    assert farthest_mm(lost.best_affine(), true) < 2.0
    everything = lost._replace(counts=(lost.fixed_sizes > 0) & (lost.moving_sizes > 0))
    assert farthest_mm(everything.best_affine(), true) > 4.0


def test_too_few_structures_leave_the_affine_of_the_centroids():
    few = np.where(CODES <= 7, CODES, 0).astype(np.uint8)
    _, moving = pair()
    between = overlap(side(few, np.eye(4), GRID), moving)
    np.testing.assert_allclose(between.best_affine(), TURNED)
    nothing = overlap(side(np.full_like(CODES, REST), np.eye(4), GRID), moving)
    assert nothing.dice(TURNED) == 0


def test_without_a_brain_there_is_no_overlap():
    fixed, moving = pair()
    assert overlap_between(fixed, moving._replace(brain=None)) is None
    assert overlap_between(fixed._replace(brain=None), moving) is None


@pytest.mark.parametrize(
    ("shift_mm", "name"), [(0.3, "segmentation, refined"), (6.0, "segmentation")]
)
def test_an_affine_by_intensities_must_not_pull_the_structures_apart(shift_mm, name):
    between = overlap(*pair())
    segmented = between.best_affine()
    shifted = segmented.copy()
    shifted[0, 3] += shift_mm
    chosen = starts._refined(segmented, between, lambda **_: shifted)
    assert list(chosen) == [name]
    np.testing.assert_array_equal(chosen[name], shifted if "refined" in name else segmented)


def test_where_a_part_is_lost_both_affines_remain():
    fixed, moving = pair()
    assert fixed.brain is not None
    codes = fixed.brain.codes.copy()
    codes[..., :28] = 0
    between = overlap(side(codes, np.eye(4), GRID), moving)
    refined = TURNED @ np.diag([1.5, 1.0, 1.0, 1.0])
    chosen = starts._refined(TURNED, between, lambda **_: refined)
    assert list(chosen) == ["segmentation, refined", "segmentation"]
