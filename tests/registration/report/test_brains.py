"""The picture of what was taken for the brain, read back by Pillow."""

import io

import numpy as np
from PIL import Image
from registration_data import write_subject

from jaxreg.data.label_codes import CLASSES, REST
from jaxreg.registration.inputs import read_subject
from jaxreg.registration.report.brains import brain_picture
from jaxreg.segmentation.segment import FoundBrain
from jaxreg.segmentation.template import GRID


def test_the_picture_shows_image_mask_and_structures(tmp_path):
    files = write_subject(tmp_path, 1, "T1w", axes="las", spacing_mm=(4.0, 5.0, 6.0))
    subject = read_subject("fixed", files["image"])
    codes = np.zeros(GRID.shape, np.uint8)
    codes[10:70, 15:80, 12:70] = REST
    codes[30:50, 30:60, 20:50] = 3
    brain = FoundBrain(np.eye(CLASSES, dtype=np.float32)[codes], np.eye(4), 1.0, {})
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
