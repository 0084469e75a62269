"""The picture of docs/normalize.md: a simulated subject in MNI152, and the atlas in the subject.

python experiments/normalize_picture.py --out docs/normalize.png
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np

import jaxreg
from jaxreg import runtime
from jaxreg.data.mni152 import require_mni152
from jaxreg.data.synthetic.icbm import write_template_cohort

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import ListedColormap  # noqa: E402

SLICES = ((2, 6.0), (1, -18.0))
"""Axis and millimetre (RAS) of the rows: axial and coronal."""


def plane(image: Any, axis: int, at_mm: float) -> np.ndarray:
    """A slice of an image, its first axis to the right and the second one up."""
    image = nib.as_closest_canonical(image)
    point = np.zeros(3)
    point[axis] = at_mm
    index = int(round((np.linalg.inv(image.affine) @ np.append(point, 1))[axis]))
    return np.take(np.asarray(image.dataobj), index, axis=axis).T


def edges(labels: np.ndarray) -> np.ndarray:
    """Where a label meets another one, else NaN."""
    border = np.zeros(labels.shape, bool)
    border[:-1] |= labels[:-1] != labels[1:]
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return np.where(border, 1.0, np.nan)


def draw(columns: list[tuple[str, Any, Any, bool]], path: Path) -> None:
    """Columns of (title, image, labels, whether the labels are filled), a row for each slice."""
    shapes = [plane(columns[0][1], *place).shape for place in SLICES]
    figure, axes = plt.subplots(
        len(SLICES),
        len(columns),
        figsize=(11, 11 / len(columns) * sum(h / w for h, w in shapes) + 0.3),
        layout="constrained",
    )
    colours = ListedColormap(np.random.default_rng(4).uniform(0.2, 1, (103, 3)))
    for row, place in zip(axes, SLICES, strict=True):
        for panel, (title, image, labels, filled) in zip(row, columns, strict=True):
            values, regions = plane(image, *place), plane(labels, *place).astype(float)
            high = float(np.percentile(values[values > 0], 99.5))
            panel.imshow(values, cmap="gray", origin="lower", vmin=0, vmax=high)
            if filled:
                shown = np.where(regions > 0, regions, np.nan)
                panel.imshow(
                    shown,
                    cmap=colours,
                    origin="lower",
                    alpha=0.5,
                    vmin=0,
                    vmax=102,
                    interpolation="nearest",
                )
            else:
                panel.imshow(
                    edges(regions),
                    cmap="autumn",
                    origin="lower",
                    alpha=0.7,
                    interpolation="nearest",
                )
            panel.set_axis_off()
            if place is SLICES[0]:
                panel.set_title(title, fontsize=10)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main():
    """Simulate a subject, normalise both of its images, and draw."""
    parser = argparse.ArgumentParser(description="Picture of a normalised subject.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="a folder that already has subject and run")
    options = parser.parse_args()
    runtime.prepare()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.run or Path(temporary)
        images = [folder / "cohort" / "sub-01" / f"sub-01_{c}.nii.gz" for c in ("T1w", "T2w")]
        if options.run is None:
            write_template_cohort(folder / "cohort", spacing_mm=2.0, subjects={"train": 1}, seed=3)
            jaxreg.normalize(images).save(folder / "run")
        files, run = require_mni152(), folder / "run"
        load: Any = nib.load
        labels, brain = load(files.labels), load(files.mask)
        template = load(files.images["T2w"])
        cut = nib.Nifti1Image(np.asarray(template.dataobj) * (brain.get_fdata() > 0), brain.affine)
        draw(
            [
                ("MNI152, T2w", cut, labels, False),
                ("T1w in MNI152", load(run / "moved.nii.gz"), labels, False),
                ("T2w by the same map", load(run / "moved_sub-01_T2w.nii.gz"), labels, False),
                ("atlas in the subject", load(images[0]), load(run / "atlas_labels.nii.gz"), True),
            ],
            options.out,
        )


if __name__ == "__main__":
    main()
