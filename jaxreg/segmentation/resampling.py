"""An image of any grid, read on the grid of the segmentation network."""

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from jaxreg.geometry.grid import Volume


def centred_points_mm(shape: tuple[int, ...], spacing_mm: float) -> Float[np.ndarray, "n 3"]:
    """Millimetres about the centre of a grid, of every voxel in order."""
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * spacing_mm for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def onto_grid(
    volume: Volume,
    to_world: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    spacing_mm: float,
    *,
    labels: bool = False,
) -> Shaped[np.ndarray, "x y z"]:
    """A volume on a centred grid whose millimetres `to_world` takes to the volume's world.

    Images are smoothed along axes with smaller voxels than the grid's, then read linearly; labels
    by the nearest voxel. 0 beyond the volume.
    """
    matrix = np.linalg.inv(volume.affine) @ to_world
    points = centred_points_mm(shape, spacing_mm) @ matrix[:3, :3].T + matrix[:3, 3]
    array = volume.array
    if not labels:
        ratio = spacing_mm / np.asarray(volume.spacing_mm)
        sigma = 0.42 * np.sqrt(np.maximum(ratio**2 - 1, 0))
        array = ndimage.gaussian_filter(array.astype(np.float32), sigma, truncate=2.5)
    read = ndimage.map_coordinates(array, points.T, order=0 if labels else 1, mode="constant")
    return read.reshape(shape)
