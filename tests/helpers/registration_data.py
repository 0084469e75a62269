"""Small pairs for the tests of registration: phantoms at 8 mm, in files of any geometry."""

import functools
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from jaxreg.data.synthetic.phantom import phantom_subject
from jaxreg.data.synthetic.simulate import centred_affine
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import affine_points, resample
from jaxreg.io.images import write

SHAPE, SPACING_MM = (24, 28, 24), 8.0
AXES = {
    "ras": np.eye(3),
    "las": np.diag([-1.0, 1.0, 1.0]),
    "psl": np.array([[0, 0, -1.0], [-1.0, 0, 0], [0, 1.0, 0]]),
    "oblique": Rotation.from_euler("zx", [15, 10], degrees=True).as_matrix(),
}


@functools.cache
def example_subject(index: int):
    """A phantom with T1w and T2w in [0, 1] and labels, and the affine of its grid."""
    affine = centred_affine(SHAPE, SPACING_MM)
    return phantom_subject(index, shape=SHAPE, spacing_mm=SPACING_MM), affine


def write_subject(
    folder: Path,
    index: int,
    domain: str,
    *,
    axes: str = "ras",
    spacing_mm: tuple[float, float, float] = (8.0, 8.0, 8.0),
    motion: np.ndarray | None = None,
) -> dict[str, Path]:
    """Paths by kind: the image (0 … 1000), `labels` and `mask`, on a grid of any axes.

    `motion` (RAS mm) is put into the headers: the anatomy lies moved by it.
    """
    subject, affine = example_subject(index)
    step = AXES[axes] * np.asarray(spacing_mm)
    size = np.abs(np.linalg.inv(step) @ affine[:3, :3] @ np.array(SHAPE))
    x, y, z = (int(n) for n in np.ceil(size - 1e-6) + 2)
    grid = Grid((x, y, z), np.eye(4))
    grid.affine[:3, :3] = step
    middle = affine_points(affine, (np.array([SHAPE]) - 1) / 2)[0]
    grid.affine[:3, 3] = middle - step @ ((np.array(grid.shape) - 1) / 2)
    there = grid.affine if motion is None else motion @ grid.affine
    brain = (subject.labels > 0).astype(np.uint8)
    kinds = {"image": 1000 * subject.images[domain], "labels": subject.labels, "mask": brain}
    paths = {}
    for kind, array in kinds.items():
        order = 1 if kind == "image" else 0
        array = resample(Volume(array, affine), lambda p: p, grid, order=order)
        name = domain if kind == "image" else f"{domain}_{kind}"
        paths[kind] = folder / f"sub-{index:02d}_{name}.nii.gz"
        write(paths[kind], Volume(array, there))
    return paths


def motion(degrees: float, shift_mm: tuple[float, float, float]) -> np.ndarray:
    """A turn about an oblique axis through the origin, and a shift."""
    matrix = np.eye(4)
    axis = np.array([0.6, -0.4, 0.7]) / np.linalg.norm([0.6, -0.4, 0.7])
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def same_but_for_timings(one: Path, other: Path) -> int:
    """How many files two folders hold beside timings.json, after each was found the same."""
    names = {p.name for p in one.iterdir()}
    assert names == {p.name for p in other.iterdir()}
    assert "timings.json" in names
    for name in names - {"timings.json"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    return len(names) - 1
