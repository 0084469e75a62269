"""The picture of what was taken for the brain, read back by Pillow."""

import io

import numpy as np
from PIL import Image
from registration_data import write_subject

from jaxreg.data.label_codes import CLASSES, NUMBERS, REST
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import write
from jaxreg.registration.inputs import Subject, read_subject
from jaxreg.registration.report.brains import brain_picture, estimate_picture
from jaxreg.segmentation.brain import FoundBrain, found_brain
from jaxreg.segmentation.segment import sampled
from jaxreg.segmentation.template import GRID


def brain_of(subject: Subject, codes: np.ndarray) -> FoundBrain:
    """A brain of codes on the template grid, where the headers have it."""
    seen = sampled(subject.image, np.eye(4), GRID)
    return found_brain(np.eye(CLASSES, dtype=np.float32)[codes], np.eye(4), seen, fit_mm=1.0)


def test_the_picture_shows_image_mask_and_structures(tmp_path):
    files = write_subject(tmp_path, 1, "T1w", axes="las", spacing_mm=(4.0, 5.0, 6.0))
    subject = read_subject("fixed", files["image"])
    codes = np.zeros(GRID.shape, np.uint8)
    codes[10:70, 15:80, 12:70] = REST
    codes[30:50, 30:60, 20:50] = 3
    brain = brain_of(subject, codes)
    png = brain_picture(subject, brain)
    assert png == brain_picture(subject, brain)
    page = np.asarray(Image.open(io.BytesIO(png)))
    # Four axial slices, four coronal and four sagittal ones, two pixels a voxel.
    x, y, z = GRID.shape
    assert page.shape == (2 * (y + z + z), 2 * 4 * max(x, y), 3)
    yellow = np.all(page == (255, 255, 0), axis=-1)
    assert 500 < yellow.sum() < 0.2 * yellow.size
    coloured = (np.ptp(page.astype(int), axis=-1) > 30) & ~yellow
    assert coloured.sum() > 500
    assert (page.max(axis=-1) == 0).sum() > 1000  # background stays black


def test_the_map_of_the_estimate_colours_what_was_estimated(tmp_path):
    """A poor and a good structure of one size, and a third one without an estimate."""
    grey = np.random.default_rng(0).uniform(90, 100, GRID.shape).astype(np.float32)
    grey[:9] = 0
    write(tmp_path / "image.nii.gz", Volume(grey, GRID.affine))
    subject = read_subject("fixed", tmp_path / "image.nii.gz")
    codes = np.zeros(GRID.shape, np.uint8)
    codes[15:65, 15:80, 12:70] = REST
    codes[20:35, 20:70, 15:65] = 2
    codes[45:60, 20:70, 15:65] = 20
    codes[37:43, 20:70, 15:65] = 5
    brain = brain_of(subject, codes)
    dice = {NUMBERS[2]: 0.3, NUMBERS[20]: 0.85}
    page = np.asarray(Image.open(io.BytesIO(estimate_picture(subject, brain, dice))), int)
    axial = page[: 2 * GRID.shape[1]]
    poor, good = ((sign * (axial[..., 0] - axial[..., 2]) > 20).sum() for sign in (1, -1))
    # Four slices, two pixels a voxel: 15 voxels across and 50 along the brain each.
    assert poor == good == 4 * 4 * 15 * 50
