"""How well both views of a segmentation agree: of brains, of parts of them, of nonsense.

    python experiments/segmentation_agreement.py --data=heads/ixi --domain=T1w
    python experiments/segmentation_agreement.py --data=ixi --domain=T2w --made

A line for each image has the mean Dice of the structures of both views and the distance of the
structures from those of the mean brain after an affine fit. With `--made` each image is also cut
from below and from above, and turned into what `experiments/nonsense.py` makes of it, into noise
and into a single value in the mask of its brain. What `jaxreg segment` refuses is said with the
reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import tyro  # noqa: E402
from nonsense import NONSENSE  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402

from jaxreg.errors import InputError  # noqa: E402
from jaxreg.geometry.grid import Volume  # noqa: E402
from jaxreg.io.images import read_image  # noqa: E402
from jaxreg.io.tables import read_table  # noqa: E402
from jaxreg.segmentation.networks import load_segmentation  # noqa: E402
from jaxreg.segmentation.segment import segment_volume  # noqa: E402

SMOOTHING = (0.0, 1.0, 3.0, 6.0)
"""Standard deviations of the noise's smoothing, in voxels."""
LOST = (0.2, 0.4, 0.5)
"""Shares of the brain's height that are out of view."""


@dataclass(frozen=True)
class Config:
    """Which images are segmented."""

    data: Path
    """Folder with participants.tsv and images SUBJECT/SUBJECT_DOMAIN.nii.gz."""
    domain: str = "T1w"
    """Contrast of the images."""
    split: str = "val"
    """Split of the subjects."""
    subjects: int = 6
    """How many of them at most."""
    made: bool = False
    """Also what is made of each image; brains without a skull are needed."""


def main(config: Config) -> None:
    """Print a line for each image."""
    for path in images_of(config):
        image = read_image(path)
        print(f"{path.name}: {said_of(image)}", flush=True)
        if config.made:
            for name, array in made_of(image.array.astype(np.float32)):
                print(f"{path.name}, {name}: {said_of(image._replace(array=array))}", flush=True)


def images_of(config: Config) -> list[Path]:
    """The images of the split's first subjects who have one."""
    rows = read_table(config.data / "participants.tsv", ("participant_id", "split"))
    subjects = [row["participant_id"] for row in rows if row["split"] == config.split]
    paths = [config.data / s / f"{s}_{config.domain}.nii.gz" for s in subjects]
    return [path for path in paths if path.is_file()][: config.subjects]


def said_of(image: Volume) -> str:
    """The two numbers of an image, or why it is refused."""
    try:
        found = segment_volume(image, load_segmentation(None)[1])
    except InputError as error:
        return f"refused: {error}"
    return f"agreement {found.agreement:.3f}, fit {found.brain.fit_mm:.1f} mm"


def made_of(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of what is made of an extracted brain."""
    heights = np.flatnonzero((array > 0).any(axis=(0, 1)))
    low, high = heights[0], heights[-1]
    for share in LOST:
        for name, part in (
            ("lower", slice(0, low + int(share * (high - low)))),
            ("upper", slice(high - int(share * (high - low)), None)),
        ):
            cut = array.copy()
            cut[:, :, part] = 0
            yield f"{name} {share:.0%} out of view", cut
    for name, make in NONSENSE.items():
        yield name, np.ascontiguousarray(make(array), np.float32)
    random, brain = np.random.default_rng(0), array > 0
    for smoothing in SMOOTHING:
        noise = gaussian_filter(random.normal(size=array.shape), smoothing)
        noise = (1 + 200 * (noise - noise.min()) / np.ptp(noise)).astype(np.float32)
        yield f"noise, smoothed by {smoothing:g} voxels", noise
        yield f"noise, smoothed by {smoothing:g} voxels, in the mask", np.where(brain, noise, 0)
    yield "a single value in the mask", brain.astype(np.float32)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
