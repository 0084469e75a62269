"""What `jaxreg register` says of moving images that are nonsense.

    python experiments/nonsense.py --data=ixi --split=val

The fixed image is the T1w of a split's first subject; each moving image is made from the T2w of the
second. A row of the table has the verdict and its reasons, or the line that refuses the image.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import tyro  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402

import jaxreg  # noqa: E402
from jaxreg.data.cohort import neighbour_pairs, read_cohort  # noqa: E402
from jaxreg.geometry.grid import Volume  # noqa: E402
from jaxreg.io.images import read_image, write  # noqa: E402


@dataclass(frozen=True)
class Config:
    """Which pair the images are made from."""

    data: Path
    """Folder of a prepared cohort of extracted brains."""
    split: str = "val"
    """Split whose first neighbouring pair is taken."""


def main(config: Config) -> None:
    """Print a row for each kind of nonsense."""
    cohort = read_cohort(config.data)
    members = (cohort.members(config.split, domain) for domain in ("T1w", "T2w"))
    fixed, moving = neighbour_pairs(*members)[0]
    t2w = read_image(cohort.file(moving, "T2w"))
    t1w = read_image(cohort.file(moving, "T1w"))
    arrays = {name: make(t2w.array.astype(np.float32)) for name, make in NONSENSE.items()}
    arrays["a T1w under the name of a T2w"] = t1w.array
    arrays["as it comes"] = t2w.array
    print("| moving image | verdict | estimated Dice | why |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moving_T2w.nii.gz"
        for name, array in arrays.items():
            array = np.ascontiguousarray(array, np.float32)
            write(path, Volume(array, t2w.affine))
            print(f"| {name} | {row(cohort.file(fixed, 'T1w'), path)} |", flush=True)


def row(fixed: Path, moving: Path) -> str:
    """The verdict, the estimate and the reasons; or what refused the pair."""
    try:
        result = jaxreg.register(fixed, moving)
    except jaxreg.InputError as error:
        return f"refused | | {error}"
    estimate = result.metrics.get("estimated_dice")
    shown = "none" if estimate is None else f"{estimate:.2f}"
    reasons = [*result.verdict.reasons, *result.warnings]
    return f"{result.verdict.state} | {shown} | {'; '.join(reasons)}"


def upside_down(brain: np.ndarray) -> np.ndarray:
    """The last axis reversed (a mirror image, turned)."""
    return brain[:, :, ::-1]


def back_to_front(brain: np.ndarray) -> np.ndarray:
    """The second axis reversed (a mirror image, turned)."""
    return brain[:, ::-1]


def smoothed_noise(brain: np.ndarray) -> np.ndarray:
    """Noise of a standard deviation of 1.5 voxels within the brain."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=brain.shape), 1.5)
    return np.where(brain > 0, 1 + 200 * (noise - noise.min()) / np.ptp(noise), 0)


def ball_of_balls(brain: np.ndarray) -> np.ndarray:
    """An ellipsoid of the size of a brain, with six balls of other intensities in it."""
    random, points = np.random.default_rng(0), np.indices(brain.shape).astype(float)

    def within(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
        apart = (points - centre[:, None, None, None]) / radii[:, None, None, None]
        return np.sum(apart**2, axis=0) < 1

    middle = np.array(brain.shape) / 2
    phantom = np.where(within(middle, np.array([30.0, 38.0, 30.0])), 100.0, 0.0)
    for _ in range(6):
        phantom[within(random.uniform(20, 60, 3), np.full(3, 8.0))] *= random.uniform(0.3, 2)
    return phantom


def knee(brain: np.ndarray) -> np.ndarray:
    """A column with a brighter column in it, textured: no more than a shape like a knee."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=brain.shape), 4)
    texture = 150 * (noise - noise.min()) / np.ptp(noise)
    first, second, _ = np.abs(
        np.indices(brain.shape) - np.array(brain.shape)[:, None, None, None] // 2
    )
    inner = texture + 40 * (first < 9)
    return np.where((first < 18) & (second < 22), inner, 0)


def half_a_brain(brain: np.ndarray) -> np.ndarray:
    """One hemisphere alone."""
    half = brain.copy()
    half[: brain.shape[0] // 2] = 0
    return half


def halves_exchanged(brain: np.ndarray) -> np.ndarray:
    """The left half where the right one was, and the other way round."""
    middle = brain.shape[0] // 2
    return np.concatenate([brain[middle:], brain[:middle]])


def halves_inside_out(brain: np.ndarray) -> np.ndarray:
    """Each half mirrored by itself, so that the middle lies outside."""
    middle = brain.shape[0] // 2
    return np.concatenate([brain[:middle][::-1], brain[middle:][::-1]])


def inverted(brain: np.ndarray) -> np.ndarray:
    """Dark where it was bright, within the brain."""
    return np.where(brain > 0, brain.max() + 1 - brain, 0)


def mirrored(brain: np.ndarray) -> np.ndarray:
    """Left and right exchanged: no registration can tell."""
    return brain[::-1]


NONSENSE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down, in its own grid": upside_down,
    "back to front, in its own grid": back_to_front,
    "smoothed noise in the mask of a brain": smoothed_noise,
    "a ball with balls in it": ball_of_balls,
    "a shape like a knee": knee,
    "half a brain": half_a_brain,
    "left and right half exchanged": halves_exchanged,
    "each half turned inside out": halves_inside_out,
    "inverted intensities": inverted,
    "a mirrored brain": mirrored,
}

if __name__ == "__main__":
    main(tyro.cli(Config))
