"""A cohort whose images of one contrast look as if another scan had been made.

    python experiments/simulated_scans.py --data=rendered --kind=low-field --out=rendered_low_field

The new cohort has the subjects of a split, or of several, with the images of the other contrasts
and the labels as they were. The images stay on the cohort's grid, so that other tools can be given
them too.

low-field    a scan of 64 mT: voxels of 1.6 × 1.6 × 5 mm, a resolution of 2.0 mm in the plane and
             4.4 mm across it (full width at half maximum), Rician noise with a signal-to-noise
             ratio of 8 to 20 in the brain, and in a T1w half of the contrast
thick-slices slices of 6 mm across the third axis, with the profile of a box
FLAIR        the signal of fluid in a T2w is suppressed; the contrast is then called FLAIR
one-scanner  every T2w is the same function of its subject's T1w, without a bias field and with a
             signal-to-noise ratio of 40, so that one contrast holds for all, as in a large study on
             one scanner
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from jaxtyping import Float
from join_cohorts import write_participants
from scipy.ndimage import gaussian_filter, uniform_filter1d

from jaxreg.data.cohort import Cohort, read_cohort
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume, grid_of
from jaxreg.geometry.transforms import resample
from jaxreg.io.atomic import completed_folder
from jaxreg.io.images import read_image, read_labels, write

Kind = Literal["low-field", "thick-slices", "FLAIR", "one-scanner"]
HEAD = 500
"""The first number of the classes around the brain."""
LOW_FIELD_MM = np.array([1.6, 1.6, 5.0])
"""Voxels of a scan of 64 mT."""
LOW_FIELD_FWHM_MM = np.array([2.0, 2.0, 4.4])
LOW_FIELD_SNR = 8.0, 20.0
LOW_FIELD_CONTRAST = {"T1w": 0.5}
"""Exponents of the intensities: T1 of grey and white matter differ less at a low field."""
SLICE_MM = 6.0
CORTEX, VENTRICLES, WHITE = (3, 42), (4, 43), (2, 41)
FLUID_LEFT = 0.1
"""Share of the signal of grey matter that fluid keeps in a FLAIR image."""
BRIGHT = 180.0
"""Intensity of grey matter there."""
T2W_LEVELS = 220.0, 120.0, 80.0
"""Intensities of fluid, grey and white matter in the T2w of one scanner."""
ONE_SCANNER_SNR = 40.0


@dataclass(frozen=True)
class Config:
    """Which images are changed, and how."""

    data: Path
    """Folder of a prepared cohort with labels."""
    kind: Kind
    """What the images look like afterwards."""
    out: Path
    """New folder for the cohort."""
    domain: str = "T2w"
    """Contrast of the images that are changed."""
    split: str = "test"
    """SPLIT[,SPLIT...] whose subjects are taken; all of them, to train on: test,val,train."""


def main(config: Config) -> None:
    """Write the cohort."""
    if config.kind in ("FLAIR", "one-scanner") and config.domain != "T2w":
        raise InputError(f"--kind={config.kind}: expected --domain=T2w, got {config.domain}.")
    cohort = read_cohort(config.data)
    random = np.random.default_rng(0)
    subjects = {
        subject: (cohort, split)
        for split in config.split.split(",")
        for subject in cohort.members(split, config.domain)
        if cohort.file(subject, "dseg").is_file()
    }
    if not subjects or config.out.exists():
        got = f"{len(subjects)} subjects with labels" if not subjects else "one that exists"
        raise InputError(f"{config.out}: expected a new folder for some subjects, got {got}.")
    with completed_folder(config.out) as folder:
        write_participants(folder, subjects)
        for subject in subjects:
            write_subject(config, cohort, subject, folder / subject, random)


def write_subject(
    config: Config, cohort: Cohort, subject: str, folder: Path, random: np.random.Generator
) -> None:
    """The changed image of a subject in a new folder, and links to all else."""
    folder.mkdir()
    old = cohort.file(subject, config.domain)
    image, labels = read_image(old), read_labels(cohort.file(subject, "dseg"))
    grid = grid_of(image)
    if config.kind == "FLAIR":
        changed = Volume(fluid_suppressed(image.array, labels.array), image.affine)
    elif config.kind == "one-scanner":
        t1w = read_image(cohort.file(subject, "T1w")).array
        changed = Volume(one_contrast(t1w, labels.array, random), image.affine)
    elif config.kind == "thick-slices":
        changed = on_grid(thick_slices(image), grid)
    else:
        changed = on_grid(low_field(image, labels, config.domain, random), grid)
    changed = np.where(image.array > 0, np.maximum(np.rint(changed.array), 1), 0)
    domain = "FLAIR" if config.kind == "FLAIR" else config.domain
    new = folder / f"{subject}_{domain}.nii.gz"
    write(new, Volume(np.clip(changed, 0, 255).astype(np.uint8), image.affine))
    for path in old.parent.iterdir():
        if path.name not in (old.name, new.name):
            os.symlink(path.resolve(), folder / path.name)


def low_field(image: Volume, labels: Volume, domain: str, random: np.random.Generator) -> Volume:
    """A simulated scan of 64 mT with the same field of view.

    What the image's own voxels blur is taken off the blur. The contrast changes about the mean of
    the brain, and the background stays.
    """
    spacing_mm = np.array(image.spacing_mm)
    blur_mm = np.sqrt(np.maximum(LOW_FIELD_FWHM_MM**2 - spacing_mm**2, 0)) / 2.355
    array = np.maximum(image.array.astype(np.float32), 0)
    true = resample(labels, lambda points: points, grid_of(image), order=0)
    typical = float(array[(true > 0) & (true < HEAD)].mean())
    array = typical * (array / typical) ** LOW_FIELD_CONTRAST.get(domain, 1.0)
    array = gaussian_filter(array, blur_mm / spacing_mm)
    step = LOW_FIELD_MM / spacing_mm
    x, y, z = np.ceil(np.array(array.shape) / step).astype(int)
    to_image = np.diag([*step, 1.0])
    to_image[:3, 3] = step / 2 - 0.5
    grid = Grid((int(x), int(y), int(z)), image.affine @ to_image)
    signal = on_grid(Volume(array, image.affine), grid).array
    noise = random.normal(0, typical / random.uniform(*LOW_FIELD_SNR), (2, *grid.shape))
    return Volume(np.hypot(signal + noise[0], noise[1]).astype(np.float32), grid.affine)


def thick_slices(image: Volume) -> Volume:
    """Slices of `SLICE_MM` across the third axis, one after another."""
    spacing_mm = image.spacing_mm[2]
    count = int(np.ceil(image.array.shape[2] * spacing_mm / SLICE_MM))
    step = SLICE_MM / spacing_mm
    summed = uniform_filter1d(image.array.astype(np.float32), max(round(step), 1), axis=2)
    to_image = np.diag([1.0, 1.0, step, 1.0])
    to_image[2, 3] = step / 2 - 0.5
    shape = (image.array.shape[0], image.array.shape[1], count)
    return on_grid(Volume(summed, image.affine), Grid(shape, image.affine @ to_image))


def fluid_suppressed(
    image: Float[np.ndarray, "x y z"], labels: Float[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z"]:
    """A T2w in which a voxel loses signal by the share of fluid that its intensity tells.

    Grey matter has the median of the cortex and no fluid, the ventricles' median is fluid alone.
    """
    grey = float(np.median(image[np.isin(labels, CORTEX)]))
    fluid = float(np.median(image[np.isin(labels, VENTRICLES)]))
    share = np.clip((image - grey) / max(fluid - grey, 1e-6), 0, 1)
    return BRIGHT / grey * np.minimum(image, grey) * (1 - (1 - FLUID_LEFT) * share)


def one_contrast(
    t1w: Float[np.ndarray, "x y z"],
    labels: Float[np.ndarray, "x y z"],
    random: np.random.Generator,
) -> Float[np.ndarray, "x y z"]:
    """A T2w made of a T1w: its fluid, grey and white matter get `T2W_LEVELS`, linear between."""
    tissues = VENTRICLES, CORTEX, WHITE
    levels = [float(np.median(t1w[np.isin(labels, numbers)])) for numbers in tissues]
    signal = np.interp(t1w, levels, T2W_LEVELS)
    noise = random.normal(0, T2W_LEVELS[1] / ONE_SCANNER_SNR, (2, *t1w.shape))
    return np.hypot(signal + noise[0], noise[1])


def on_grid(volume: Volume, grid: Grid) -> Volume:
    """A volume read linearly on a grid."""
    return Volume(resample(volume, lambda points: points, grid), grid.affine)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
