"""Interpolation of images and labels against SimpleITK and against the labels' own masks."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import affine_points, resample, voxel_indices

RNG = np.random.default_rng(4)
SHAPE, OTHER = (13, 17, 11), (15, 12, 14)
AFFINE = np.array([[1.5, 0, 0, -9], [0, 1.2, 0, 3], [0, 0, 2.1, -4], [0, 0, 0, 1]])
GRID = Grid(OTHER, np.array([[1.1, 0, 0, -6], [0, 1.3, 0, 5], [0, 0, 1.4, -3], [0, 0, 0, 1.0]]))
TURN = np.array([[0.98, -0.17, 0.05, 1], [0.17, 0.98, 0.02, -2], [-0.05, 0, 1, 0.5], [0, 0, 0, 1]])


def pull_back(points):
    return affine_points(TURN, points)


def in_itk(volume: Volume, interpolator: int, fill: float) -> np.ndarray:
    """The same by SimpleITK, whose axes here are those of the arrays."""
    image = sitk.GetImageFromArray(volume.array.transpose(2, 1, 0))
    image.SetSpacing(np.diag(volume.affine)[:3].tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(TURN[:3, :3].ravel().tolist())
    transform.SetTranslation(TURN[:3, 3].tolist())
    moved = sitk.Resample(
        image,
        list(GRID.shape),
        transform,
        interpolator,
        GRID.affine[:3, 3].tolist(),
        np.diag(GRID.affine)[:3].tolist(),
        np.eye(3).ravel().tolist(),
        fill,
    )
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


@pytest.mark.parametrize(
    ("order", "interpolator"),
    [(0, sitk.sitkNearestNeighbor), (1, sitk.sitkLinear), (3, sitk.sitkBSpline)],
)
def test_images_are_those_of_itk(order, interpolator):
    image = ndimage.gaussian_filter(RNG.normal(size=SHAPE), 1).astype(np.float32)
    found = resample(Volume(image, AFFINE), pull_back, GRID, order=order, fill=-7.0)
    wanted = in_itk(Volume(image, AFFINE), interpolator, -7.0)
    index = affine_points(np.linalg.inv(AFFINE) @ TURN @ GRID.affine, voxel_indices(GRID))
    deep = ((index > 0.01) & (index < np.array(SHAPE) - 1.01)).all(axis=1).reshape(OTHER)
    assert deep.sum() > 300 and (found == -7).sum() > 30
    np.testing.assert_allclose(found[deep], wanted[deep], atol=2e-5 if order else 0)
    outside = ((index < -0.51) | (index > np.array(SHAPE) - 0.49)).any(axis=1).reshape(OTHER)
    np.testing.assert_array_equal(found[outside], -7)


def test_smooth_labels_are_the_largest_of_the_interpolated_masks():
    coarse = RNG.integers(0, 5, (5, 6, 4))
    labels = np.kron(coarse, np.ones((3, 3, 3), int))[:13, :17, :11].astype(np.int16) * 1001
    volume = Volume(labels, AFFINE)
    found = resample(volume, pull_back, GRID, order=0, smooth_labels=True, fill=9.0)
    values = np.unique(labels)
    shares = np.stack(
        [
            resample(
                Volume((labels == v).astype(np.float32), AFFINE),
                pull_back,
                GRID,
                order=1,
                fill=-1.0,
            )
            for v in values
        ]
    )
    outside = shares[0] < 0
    wanted = values[np.argmax(shares, axis=0)]
    ordered = np.sort(shares, axis=0)
    clear = ~outside & (ordered[-1] - ordered[-2] > 1e-5)
    assert clear.sum() > 500 and found.dtype == labels.dtype
    np.testing.assert_array_equal(found[clear], wanted[clear])
    assert (found[outside] == 9).all() and set(np.unique(found[~outside])) <= set(values)
    nearest = resample(volume, pull_back, GRID, order=0)
    assert 0 < (found != nearest)[clear].mean() < 0.3
