"""Metrics against SimpleITK, SciPy, analytic fields and values worked out by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import SimpleITK as sitk

from jaxreg.evaluation import metrics

SHAPE = (11, 9, 13)
SPACING_MM = (1.0, 2.0, 3.5)
EVERYWHERE = jnp.ones(SHAPE, bool)


def _affine_displacement(matrix, shape=SHAPE):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return jnp.asarray(grid @ (np.asarray(matrix) - np.eye(3)).T, jnp.float32)


def _checkerboard(amplitude, shape=SHAPE):
    """A displacement along x of ±amplitude, the sign alternating from voxel to voxel."""
    u = np.zeros((*shape, 3), np.float32)
    u[..., 0] = amplitude * (-1.0) ** np.indices(shape).sum(axis=0)
    return jnp.asarray(u)


def _random_labels(seed):
    return np.random.default_rng(seed).choice([0, 2, 7, 9, 41], SHAPE).astype(np.int32)


def _box(start, size, shape=(20, 16, 14)):
    labels = np.zeros(shape, np.int32)
    labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = 5
    return labels


def test_dice_is_that_of_simpleitk_in_any_order_of_structures():
    fixed, moved = _random_labels(0), _random_labels(1)
    structures = np.array([41, 2, 9], np.int32)  # 7 is not scored
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moved))
    expected = [overlap.GetDiceCoefficient(int(s)) for s in structures]
    got = jax.jit(metrics.dice)(jnp.asarray(fixed), jnp.asarray(moved), jnp.asarray(structures))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_dice_by_hand_under_vmap_over_lam():
    fixed = _box((2, 2, 2), (4, 3, 2))
    moved = np.stack([_box((2 + i, 2, 2), (4, 3, 2)) for i in range(5)])
    structures = jnp.asarray([5])
    score = jax.jit(jax.vmap(lambda m: metrics.dice(jnp.asarray(fixed), m, structures)))
    np.testing.assert_allclose(score(jnp.asarray(moved))[:, 0], [1, 0.75, 0.5, 0.25, 0], rtol=1e-6)


def test_a_structure_absent_from_both_is_nan_and_one_that_vanished_is_zero():
    fixed = jnp.asarray(_box((2, 2, 2), (4, 3, 2)))
    moved = jnp.zeros_like(fixed)
    dice = jax.jit(metrics.dice)(fixed, moved, jnp.asarray([5, 8]))
    np.testing.assert_array_equal(dice, [0, np.nan])


def test_present_asks_the_labels_before_the_warp():
    fixed, moving = np.zeros((2, 3, 4), np.int32), np.zeros((4, 3, 2), np.int32)
    fixed[0, 0, :3] = [1, 2, 4]
    moving[:3, 0, 0] = [4, 3, 1]
    got = jax.jit(metrics.present)(
        jnp.asarray(fixed), jnp.asarray(moving), jnp.asarray([4, 3, 2, 1, 9])
    )
    np.testing.assert_array_equal(got, [True, False, False, True, False])


def _hd95_simpleitk(fixed, moved, spacing_mm):
    """Directed distances between the label contours on Maurer distance maps of SimpleITK."""
    contours, maps = [], []
    for labels in (fixed, moved):
        image = sitk.GetImageFromArray(labels.T.astype(np.uint8))
        image.SetSpacing(spacing_mm)
        contour = sitk.LabelContour(image == 5, fullyConnected=False)
        distance = sitk.SignedMaurerDistanceMap(
            contour, squaredDistance=False, useImageSpacing=True
        )
        contours.append(sitk.GetArrayFromImage(contour) > 0)
        maps.append(np.abs(sitk.GetArrayFromImage(distance)))
    return max(np.percentile(maps[1][contours[0]], 95), np.percentile(maps[0][contours[1]], 95))


def test_hd95_is_that_of_simpleitk_distance_maps():
    rng = np.random.default_rng(3)
    r = np.linalg.norm((np.indices((20, 16, 14)).T - [10, 8, 7]) * SPACING_MM, axis=-1).T
    fixed = np.where(r < 12 + rng.normal(size=r.shape), 5, 0).astype(np.int32)
    moved = np.roll(np.where(r < 9 + rng.normal(size=r.shape), 5, 0), 1, axis=1).astype(np.int32)
    (got,) = metrics.hd95_mm(fixed, moved, np.array([5]), SPACING_MM)
    # SimpleITK keeps distances in float32.
    np.testing.assert_allclose(got, _hd95_simpleitk(fixed, moved, SPACING_MM), rtol=1e-5)


@pytest.mark.parametrize(
    ("shift", "expected"), [((3, 0, 0), 3.0), ((0, 2, 0), 4.0), ((0, 0, 2), 7.0)]
)
def test_hd95_of_shifted_boxes_is_the_shift_in_mm(shift, expected):
    # Over 5 % of the surface lies on the end face, which is as far from the other box as the shift.
    fixed = _box((3, 3, 3), (6, 6, 6))
    moved = _box(np.add((3, 3, 3), shift), (6, 6, 6))
    structures = np.array([5])
    np.testing.assert_allclose(metrics.hd95_mm(fixed, moved, structures, SPACING_MM), [expected])
    np.testing.assert_allclose(metrics.hd95_mm(moved, fixed, structures, SPACING_MM), [expected])


def test_hd95_counts_the_edge_of_the_grid_as_surface_and_absent_structures_as_nan():
    fixed = np.full((6, 5, 4), 5, np.int32)
    np.testing.assert_array_equal(
        metrics.hd95_mm(fixed, fixed, np.array([5, 1]), SPACING_MM), [0, np.nan]
    )
    np.testing.assert_array_equal(
        metrics.hd95_mm(fixed, np.zeros_like(fixed), np.array([5]), SPACING_MM), [np.nan]
    )


def test_an_affine_warp_has_no_folds_and_no_spread():
    u = _affine_displacement([[1.2, 0.1, 0.0], [-0.2, 0.9, 0.3], [0.0, 0.1, 1.1]])
    assert jax.jit(metrics.folds_percent)(u, EVERYWHERE) == 0
    assert jax.jit(metrics.non_diffeomorphic_volume)(u, EVERYWHERE) == 0
    # Displacements up to 5 voxels in float32: differences are good to 1e-6.
    np.testing.assert_allclose(jax.jit(metrics.sdlogj)(u, EVERYWHERE), 0, atol=1e-5)


def test_a_mirrored_grid_folds_everywhere():
    u = _affine_displacement(np.diag([-1.0, 1.0, 1.0]))
    assert jax.jit(metrics.folds_percent)(u, EVERYWHERE) == 100
    volume = jax.jit(metrics.non_diffeomorphic_volume)(u, EVERYWHERE)
    np.testing.assert_allclose(volume, 100, rtol=1e-6)
    # All at the floor; the mean of a thousand equal float32 logarithms is good to 1e-5 of them.
    np.testing.assert_allclose(jax.jit(metrics.sdlogj)(u, EVERYWHERE), 0, atol=1e-4)


def test_folds_are_counted_in_the_mask_alone():
    u = np.zeros((*SHAPE, 3), np.float32)
    u[4, 3, 6, 1] = 4.0  # central differences along y: det J = 3 at y = 2 and −1 at y = 4
    u[1, 3, 6, 1] = 4.0  # x = 1 lies outside the mask
    mask = np.zeros(SHAPE, bool)
    mask[3:, 2:7, 1:] = True
    got = jax.jit(metrics.folds_percent)(jnp.asarray(u), mask)
    np.testing.assert_allclose(got, 100 / mask.sum(), rtol=1e-6)


def test_folds_and_spread_are_those_of_numpy_in_a_brain_that_touches_the_border():
    random = np.random.default_rng(3)
    u = random.normal(scale=0.7, size=(*SHAPE, 3))
    mask = np.zeros(SHAPE, bool)
    mask[:7, 2:, 3:10] = random.random((7, 7, 7)) < 0.8
    # Every number again: ∂φ_a/∂x_b by NumPy's differences, the determinant by its LU.
    phi = u + np.moveaxis(np.indices(SHAPE), 0, -1)
    jacobian = np.stack([np.stack(list(np.gradient(phi[..., a])), -1) for a in range(3)], -2)
    determinant = np.linalg.det(jacobian)[mask]
    log_j = np.log(np.maximum(determinant, 1e-3))
    folds, spread = (
        jax.jit(f)(jnp.asarray(u, jnp.float32), mask)
        for f in (metrics.folds_percent, metrics.sdlogj)
    )
    assert 0 < folds < 100
    np.testing.assert_allclose(folds, 100 * np.mean(determinant <= 0), rtol=1e-6)
    np.testing.assert_allclose(spread, log_j.std(), rtol=1e-5)


def test_an_empty_mask_has_no_folds_to_count():
    u, nowhere = _affine_displacement(np.eye(3)), jnp.zeros(SHAPE, bool)
    for score in (metrics.folds_percent, metrics.sdlogj, metrics.non_diffeomorphic_volume):
        assert np.isnan(jax.jit(score)(u, nowhere))


def test_sdlogj_of_a_stretch_of_two_halves():
    # φ' = 2 for x < 10 and 0.5 beyond: log 2 in one half, −log 2 in the other.
    x = np.arange(20)
    phi = np.where(x < 10, 2.0 * x, 20 + 0.5 * (x - 10))
    u = np.zeros((20, 7, 8, 3), np.float32)
    u[..., 0] = (phi - x)[:, None, None]
    mask = np.zeros(u.shape[:3], bool)
    mask[3:15] = True
    log_j = np.log(np.gradient(phi))[3:15]
    got = jax.jit(metrics.sdlogj)(jnp.asarray(u), mask)
    np.testing.assert_allclose(got, log_j.std(), rtol=1e-5)


def test_sdlogj_puts_the_floor_under_a_fold():
    u = np.zeros((12, 7, 8, 3), np.float32)
    u[6, ..., 0] = 4.0  # det J = 3 at x = 5, −1 at x = 7, 1 elsewhere
    mask = np.zeros(u.shape[:3], bool)
    mask[2:10] = True
    log_j = np.log([1, 1, 1, 3, 1, 1e-2, 1, 1])
    got = jax.jit(lambda u, m: metrics.sdlogj(u, m, floor=1e-2))(jnp.asarray(u), jnp.asarray(mask))
    np.testing.assert_allclose(got, log_j.std(), rtol=1e-5)


def test_central_differences_miss_a_checkerboard_that_ndv_finds():
    u = _checkerboard(0.8)
    mask = np.zeros(SHAPE, bool)
    mask[2:-2, 2:-2, 2:-2] = True
    assert jax.jit(metrics.folds_percent)(u, mask) == 0
    # The eight corner determinants are 1 ± 1.6; J1*, J2* are 2 (equal signs): ½ · 4 · 0.6 / 6.
    volume = jax.jit(metrics.non_diffeomorphic_volume)
    np.testing.assert_allclose(volume(u, EVERYWHERE), 20, rtol=1e-5)
    assert volume(_checkerboard(0.4), EVERYWHERE) == 0


def test_ndv_is_the_negative_part_of_ten_finite_differences():
    u = np.random.default_rng(4).normal(scale=0.6, size=(*SHAPE, 3))
    phi = u + np.moveaxis(np.indices(SHAPE), 0, -1)
    mask = np.ones(SHAPE, bool)
    mask[:2], mask[6, 3, 5] = False, False
    corners = np.array(list(np.ndindex(2, 2, 2)))
    total, every = 0.0, itertools.product(*(range(n - 1) for n in SHAPE))
    cells = [cell for cell in every if all(mask[tuple(corner)] for corner in cell + corners)]
    for cell in cells:
        for sign in itertools.product((1, -1), repeat=3):
            at = np.array(cell) + [s < 0 for s in sign]
            # Forward differences where the sign is +, backward where it is −.
            pairs = zip(sign, np.diag(sign), strict=True)
            rows = [s * (phi[tuple(at + step)] - phi[tuple(at)]) for s, step in pairs]
            total += max(-np.linalg.det(rows), 0)
        for at, s in ((np.array(cell), 1), (np.array(cell) + 1, -1)):
            steps = s * np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
            rows = [s * (phi[tuple(at + step)] - phi[tuple(at)]) for step in steps]
            total += max(-np.linalg.det(rows), 0)
    got = jax.jit(metrics.non_diffeomorphic_volume)(jnp.asarray(u, jnp.float32), mask)
    np.testing.assert_allclose(got, 100 * 0.5 * total / 6 / len(cells), rtol=1e-5)


def test_inverse_consistency_of_translations_in_mm():
    forward = jnp.broadcast_to(jnp.asarray([1.0, -1.0, 0.5]), (*SHAPE, 3))
    inverse = jnp.broadcast_to(jnp.asarray([-1.0, 0.0, 0.5]), (*SHAPE, 3))
    error = jax.jit(lambda f, i, m: metrics.inverse_consistency_mm(f, i, m, SPACING_MM))
    mask = jnp.ones(SHAPE, bool)
    # Left over: (0, −1, 1) voxels, that is (0, −2, 3.5) mm.
    # A float32 sum over a thousand voxels is good to 2e-5.
    np.testing.assert_allclose(error(forward, inverse, mask), np.hypot(2, 3.5), rtol=1e-4)
    np.testing.assert_allclose(error(forward, -forward, mask), 0, atol=1e-7)


def test_inverse_consistency_is_averaged_in_the_mask():
    rng = np.random.default_rng(5)
    u = rng.normal(size=(*SHAPE, 3)).astype(np.float32)
    mask = rng.random(SHAPE) < 0.3
    expected = np.linalg.norm(u * np.asarray(SPACING_MM), axis=-1)[mask].mean()
    got = metrics.inverse_consistency_mm(
        jnp.asarray(u), jnp.zeros_like(u), jnp.asarray(mask), SPACING_MM
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5)
