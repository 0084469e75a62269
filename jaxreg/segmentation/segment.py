"""A brain found and segmented in an image of any contrast, resolution and orientation.

A coarse network sees the whole field of view in voxels of 4 mm and says roughly what lies where.
The centroids of its structures give the affine map from the template to the image; with it the fine
network's grid of 2 mm is laid onto the brain. The fine answer lays the grid up to twice more, while
it moves it by more than `SETTLED_MM`. What is returned lies on the image's own grid.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8

from jaxreg.data.label_codes import CLASSES, MIRRORED, REST
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.itk_sampling import sample_affine
from jaxreg.geometry.resampling import block_mean
from jaxreg.segmentation.brain import FoundBrain, found_brain, likeliest, overlap
from jaxreg.segmentation.normalization import normalize
from jaxreg.segmentation.own_grid import on_own_grid
from jaxreg.segmentation.template import (
    CENTROIDS_MM,
    FEWEST_STRUCTURES,
    GRID,
    centroids_mm,
    from_template,
)

Network = Callable[[Float[Array, "x y z 1"]], Float[Array, "x y z k"]]
"""A normalised image to the probability of every class."""

COARSE_SHAPE, COARSE_MM = (64, 64, 64), 4.0
SETTLED_MM = 1.5
"""Another look follows, up to twice, where the corners of the brain move by more than this."""
LEAST_LITRES, MOST_LITRES = 0.35, 2.6
"""Volumes of what is taken for a brain."""
WORST_FIT_MM = 12.0
"""Root mean square distance of the structures' centroids from where the template has them."""
LEAST_AGREEMENT, USUAL_AGREEMENT = 0.5, 0.8
"""Mean Dice of the structures as the fine network sees them directly and in a mirror. Below the
first an image is refused, below the second the result is doubtful: whole brains have 0.86 to 0.93,
noise in the mask of a brain 0.58 to 0.75 (docs/segment.md)."""
_STEP_MM = 96.0
"""How far apart the coarse windows lie that cover a long field of view."""


class Networks(NamedTuple):
    """The two networks as functions."""

    coarse: Network
    fine: Network


class Segmentation(NamedTuple):
    """What was found in an image; `labels` (FreeSurfer's numbers) and `mask` lie on its grid.

    `agreement` is the mean Dice of the structures as the network sees them directly and in a
    mirror, in [0, 1].
    """

    labels: UInt8[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    brain: FoundBrain
    agreement: float

    @property
    def doubt(self) -> str | None:
        """Why the result should not be used unseen, in one line; None where nothing speaks."""
        if self.agreement >= USUAL_AGREEMENT:
            return None
        return (
            "the segmentation is doubtful: seen in a mirror, its structures overlap those of the "
            f"direct view by {self.agreement:.2f} (whole brains have 0.86 to 0.93). The image may "
            "show a part of a brain, or none"
        )


def segment_volume(image: Volume, networks: Networks) -> Segmentation:
    """The structures and the brain of an image, on its own grid.

    Raises:
        InputError: the image shows no brain, or too little of one.
    """
    brain, agreement = with_both_views(find_brain(image, networks), networks.fine)
    labels, mask = on_own_grid(image, brain)
    require_brain(float(mask.sum()) * image.voxel_ml / 1000, brain.fit_mm)
    if agreement < LEAST_AGREEMENT:
        raise InputError(
            "expected the structures of a brain, found some that overlap what a mirror image shows "
            f"by {agreement:.2f} alone."
        )
    return Segmentation(labels, mask, brain, agreement)


def find_brain(image: Volume, networks: Networks) -> FoundBrain:
    """The brain of an image and its structures, on the template grid laid onto it.

    Raises:
        InputError: the image shows no brain, or too little of one.
    """
    codes, affine = coarse_codes(image, networks.coarse)
    to_image, _ = template_pose(codes, affine)
    for look in range(3):
        seen = sampled(image, to_image, GRID)
        probabilities = fine_probabilities(seen, networks.fine)
        better, fit_mm = template_pose(likeliest(probabilities), to_image @ GRID.affine)
        moved = farthest_mm(better, to_image)
        if moved <= SETTLED_MM or look == 2:
            break
        to_image = better
    brain = found_brain(probabilities, to_image, seen, fit_mm=fit_mm)
    require_brain(brain.litres, fit_mm)
    return brain


def coarse_codes(
    image: Volume, network: Network
) -> tuple[UInt8[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """(codes, affine) of the window of the coarse grid that shows most of a brain.

    A field of view longer than the window is looked at in several windows along its axes.
    """
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for centre in _window_centres(image):
        values, affine = _window(image, centre)
        scaled = normalize(jnp.asarray(values))
        codes = likeliest(np.asarray(network(scaled[..., None])))
        brain = float((codes > 0).sum())
        if best is None or brain > best[0]:
            best = brain, codes, affine
    assert best is not None
    return best[1], best[2]


def _window_centres(image: Volume) -> list[np.ndarray]:
    """Voxel coordinates of the centres of the windows, the middle of the image first."""
    shape, spacing = np.array(image.array.shape), np.array(image.spacing_mm)
    window = np.array(COARSE_SHAPE) * COARSE_MM
    offsets = []
    for n, s, w in zip(shape, spacing, window, strict=True):
        extra = max(0.0, (n * s - w) / 2)
        count = int(np.ceil(extra / _STEP_MM))
        offsets.append(
            sorted({k * extra / max(count, 1) for k in range(-count, count + 1)}, key=abs)
        )
    middle = (shape - 1) / 2
    return [
        middle + np.array([x, y, z]) / spacing
        for x in offsets[0]
        for y in offsets[1]
        for z in offsets[2]
    ]


def _window(image: Volume, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(area means along the image's own axes, affine) of the coarse grid about a voxel."""
    values = np.asarray(image.array, np.float32)
    scale = COARSE_MM / np.array(image.spacing_mm)
    first = centre - scale * (np.array(COARSE_SHAPE) - 1) / 2
    for axis in range(3):
        n = values.shape[axis]
        at = first[axis] + scale[axis] * np.arange(COARSE_SHAPE[axis])
        weights = _area_weights(at, n, max(float(scale[axis]), 1.0))
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    to_voxels = np.diag([*scale, 1.0])
    to_voxels[:3, 3] = first
    return values, image.affine @ to_voxels


def _area_weights(at: np.ndarray, n: int, width: float) -> np.ndarray:
    """Matrix [len(at), n]: the overlap of intervals of a width with the voxels, as a mean.

    With a width of one voxel that is linear interpolation; beyond the image all weights are 0.
    """
    voxel = np.arange(n)[None, :]
    low, high = at[:, None] - width / 2, at[:, None] + width / 2
    overlap = np.minimum(high, voxel + 0.5) - np.maximum(low, voxel - 0.5)
    return (np.maximum(overlap, 0) / width).astype(np.float32)


def template_pose(
    codes: UInt8[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "4 4"], float]:
    """(template millimetres to the image's, root mean square distance that remains) of codes.

    Structures that lie far off the fit count less in the next one (Huber weights), so that a
    structure found in the wrong place does not turn the head.

    Raises:
        InputError: too few structures were found.
    """
    centroids, volume_ml = centroids_mm(codes, affine)
    there = volume_ml > 0.02
    if there.sum() < FEWEST_STRUCTURES:
        raise InputError(
            f"expected a brain, found {int(there.sum())} of {REST - 1} structures in the image."
        )
    template = np.array([*CENTROIDS_MM.values()])
    weight = np.where(there, volume_ml, 0.0)
    for _ in range(5):
        matrix = from_template(centroids, weight)
        distance = np.linalg.norm(template @ matrix[:3, :3].T + matrix[:3, 3] - centroids, axis=1)
        typical = max(float(np.median(distance[there])), 1.0)
        doubt = np.minimum(1.0, 2 * typical / np.maximum(distance, 1e-6))
        weight = np.where(there, volume_ml * doubt**4, 0.0)
    return matrix, float(np.sqrt(np.mean(distance[there] ** 2)))


def fine_probabilities(
    seen: Float32[np.ndarray, "i j k"], network: Network
) -> Float32[np.ndarray, "i j k c"]:
    """The probability of each class on the template grid, of an image sampled there."""
    return np.asarray(network(normalize(jnp.asarray(seen))[..., None]), np.float32)


def mirrored_view(brain: FoundBrain, network: Network) -> Volume:
    """The codes of the same brain as the fine network sees it in a mirror: a second opinion."""
    return Volume(_mirrored_back(_seen_mirrored(brain, network)), brain.affine)


def _mirrored_back(mirrored: Float[Array, "i j k c"]) -> UInt8[np.ndarray, "i j k"]:
    """The likeliest codes of a mirrored answer, where they belong."""
    return MIRRORED[likeliest(np.asarray(mirrored))[::-1]].astype(np.uint8)


def with_both_views(brain: FoundBrain, network: Network) -> tuple[FoundBrain, float]:
    """(a brain with the mean of the probabilities of both views, the mean Dice of the two).

    On 26 validation images this raised the Dice of the structures by 0.003 to 0.007.
    """
    assert brain.probabilities is not None
    mirrored = _seen_mirrored(brain, network)
    dice, sizes = overlap(brain.codes, _mirrored_back(mirrored))
    agreement = float(dice[sizes > 0].mean()) if sizes.any() else 0.0
    probabilities = np.asarray(_mean_of_views(brain.probabilities, mirrored))
    both = found_brain(probabilities, brain.to_image, brain.seen, fit_mm=brain.fit_mm)
    return both, agreement


def _seen_mirrored(brain: FoundBrain, network: Network) -> Float[Array, "i j k c"]:
    """The probabilities of a mirrored brain, as the network sees it.

    The template grid is symmetric, so the mirrored image lies on it as well.
    """
    values = normalize(jnp.asarray(brain.seen))[::-1]
    return jnp.asarray(network(values[..., None]))


@jax.jit
def _mean_of_views(
    direct: Float[Array, "i j k c"], mirrored: Float[Array, "i j k c"]
) -> Float[Array, "i j k c"]:
    """The mirrored answer is mirrored back; left and right structures are exchanged."""
    return 0.5 * (direct + mirrored[::-1][..., MIRRORED[:CLASSES]])


def sampled(
    image: Volume, to_image: Float[np.ndarray, "4 4"], grid: Grid
) -> Float32[np.ndarray, "i j k"]:
    """Means of an image over the voxels of a grid, 0 outside the field of view."""
    to_voxels = np.linalg.inv(image.affine) @ to_image @ grid.affine
    step = float(np.linalg.norm(to_voxels[:3, :3], axis=0).max())
    fine = 2 if step > 1.25 else 1
    half = np.diag([1 / fine, 1 / fine, 1 / fine, 1.0])
    half[:3, 3] = 0.5 / fine - 0.5
    return block_mean(
        sample_affine(image.array, to_voxels @ half, [fine * n for n in grid.shape]), fine
    )


def farthest_mm(one: Float[np.ndarray, "4 4"], other: Float[np.ndarray, "4 4"]) -> float:
    """How far two maps of the template take a corner of the brain's box apart, at most."""
    corners = np.array(np.meshgrid((-70, 70), (-105, 75), (-60, 80), indexing="ij")).reshape(3, -1)
    difference = (one - other)[:3]
    moved = difference[:, :3] @ corners + difference[:, 3:]
    return float(np.linalg.norm(moved, axis=0).max())


def require_brain(litres: float, fit_mm: float) -> None:
    """Raise InputError where what was found cannot be a human brain."""
    if not LEAST_LITRES <= litres <= MOST_LITRES:
        raise InputError(
            f"expected a brain of {LEAST_LITRES} to {MOST_LITRES} litres, found {litres:.2f}."
        )
    if fit_mm > WORST_FIT_MM:
        raise InputError(
            f"expected the structures of a brain, found some that lie {fit_mm:.0f} mm from where "
            "a brain has them."
        )
