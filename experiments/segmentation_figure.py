"""The picture of docs/segment.md: heads of four kinds with what `jaxreg segment` found in them.

    python experiments/segmentation_figure.py --data=heads

`heads` holds the cohorts `ixi` and `labels` of whole heads, and raw clinical scans in `msraw`. The
slices are cut to the brain and show no face. IXI is CC BY-SA 3.0; the label maps from which the T2w
was rendered are Apache-2.0; the clinical scans are CC BY.
"""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jaxreg import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import tyro  # noqa: E402
from matplotlib.colors import ListedColormap  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402
from simulated_scans import low_field  # noqa: E402

from jaxreg.evaluation.figures.colours import structure_colours  # noqa: E402
from jaxreg.geometry.grid import Grid, Volume  # noqa: E402
from jaxreg.io.images import read_image, read_labels, reordered, write  # noqa: E402
from jaxreg.segmentation.files import SegmentedImage, segment_scan  # noqa: E402

SHOWN = (
    ("ixi", "sub-ixi483", "T1w", False, "T1w at 2 mm (IXI)"),
    ("ixi", "sub-ixi483", "T1w", True, "the same, simulated at 64 mT"),
    ("labels", "sub-13", "T2w", False, "T2w in slices of 3 mm (rendered)"),
    ("msraw", "sub-msraw01", "FLAIR", False, "raw clinical FLAIR, with lesions"),
)
"""Cohort, subject, contrast, whether at a low field, caption."""
SLICES: tuple[tuple[int, float], ...] = ((2, 0.45), (2, 0.6), (2, 0.75), (1, 0.4))
"""Axis across the slice, and where between the ends of the brain it lies."""
MARGIN_MM = 8.0


@dataclass(frozen=True)
class Config:
    """Draw the picture."""

    data: Path
    """Folder of the cohorts of whole heads."""
    out: Path = Path("docs/segmentation.png")
    """The picture."""


def main(config: Config) -> None:
    """Segment the images, and write the picture."""
    figure = Figure(figsize=(7.2, 8.2), layout="constrained")
    axes = figure.subplots(len(SHOWN), len(SLICES))
    for row, (cohort, subject, contrast, low, caption) in zip(axes, SHOWN, strict=True):
        stem = next((config.data / cohort).glob(f"**/{subject}_{contrast}.nii.gz")).parent / subject
        path = Path(f"{stem}_{contrast}.nii.gz")
        with tempfile.TemporaryDirectory() as folder:
            if low:
                labels = read_labels(Path(f"{stem}_dseg.nii.gz"))
                scan = low_field(read_image(path), labels, contrast, np.random.default_rng(0))
                path = Path(folder) / path.name
                write(path, scan)
            found = segment_scan(path)
        for ax, (axis, share) in zip(row, SLICES, strict=True):
            draw(ax, found, axis, share)
        row[0].set_ylabel(caption, fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90)
    picture = Image.open(png).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(config.out, optimize=True)


def draw(ax, found: SegmentedImage, axis: int, share: float) -> None:
    """A slice of the image, cut to the brain, with its outline and its structures."""
    image, spacing_mm = found.image.array, np.array(found.image.spacing_mm)
    own = Grid(image.shape, found.image.affine)
    mask, labels = (
        reordered(Volume(array, found.header.grid.affine), own)
        for array in (found.mask, found.labels)
    )
    inside = np.argwhere(mask)
    low, high = inside.min(axis=0), inside.max(axis=0)
    margin = np.ceil(MARGIN_MM / spacing_mm).astype(int)
    box = [slice(max(a - m, 0), b + m + 1) for a, b, m in zip(low, high, margin, strict=True)]
    index = round(float(low[axis] + share * (high[axis] - low[axis])))
    box[axis] = slice(index, index + 1)
    grey, brain, structures = (
        np.squeeze(array[tuple(box)], axis).T for array in (image, mask, labels)
    )
    across, up = np.delete(spacing_mm, axis)
    shown = {"origin": "lower", "aspect": up / across, "interpolation": "nearest"}
    ax.imshow(grey, cmap="gray", vmin=0, vmax=np.percentile(image[mask], 99.5), **shown)
    tints = [(0, 0, 0, 0), *((*rgb, 0.4) for rgb in structure_colours()[1:])]
    ax.imshow(structures, cmap=ListedColormap(tints), vmin=0, vmax=255, **shown)
    ax.contour(brain.astype(float), [0.5], colors="yellow", linewidths=0.8)
    ax.set_xticks([])
    ax.set_yticks([])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
