"""The estimated Dice: overlap of segmentations by hand, second opinions, and what it is made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registration_data import motion

from jaxreg.data.label_codes import CLASSES, MIRRORED, NUMBERS, REST
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import write
from jaxreg.registration.extraction import without_ignored
from jaxreg.registration.inputs import read_subject
from jaxreg.registration.output.estimate import (
    EstimatedDice,
    as_record,
    own_overlap,
)
from jaxreg.segmentation.brain import FoundBrain, found_brain
from jaxreg.segmentation.segment import mirrored_view, sampled
from jaxreg.segmentation.template import GRID


def brain_of(
    codes: np.ndarray, to_image: np.ndarray | None = None, seen: np.ndarray | None = None
) -> FoundBrain:
    """A brain whose segmentation is a map of codes on the template grid."""
    probabilities = np.eye(CLASSES, dtype=np.float32)[codes]
    there = np.eye(4) if to_image is None else to_image
    shown = np.zeros(GRID.shape, np.float32) if seen is None else seen
    return found_brain(probabilities, there, shown, fit_mm=1.0)


def laid(codes: np.ndarray, to_image: np.ndarray | None = None) -> Volume:
    """A map of codes on the template grid, which lies somewhere in an image's space."""
    return Volume(codes, brain_of(codes, to_image).affine)


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    """Boxes of three structures in the rest of a brain, nothing symmetric."""
    codes = np.zeros(GRID.shape, np.uint8)
    codes[10:70, 15:80, 12:70] = REST
    codes[20:40, 30:60, 20:50] = 2
    codes[44:60, 30:47, 25:60] = 17
    codes[50:64, 60:72, 30:41] = 9
    return codes


def test_a_brain_overlaps_with_itself_wherever_its_image_lies(codes):
    there = motion(25, (30, -12, 5))
    dice, sizes = own_overlap(laid(codes), laid(codes, there), [there])
    found = [2 - 1, 9 - 1, 17 - 1]
    np.testing.assert_allclose(dice[found], 1.0)
    assert np.all(np.delete(dice, found) == 0)
    assert np.all(np.delete(sizes, found) == 0)
    assert sizes[1] == 20 * 30 * 30


def test_the_overlap_is_that_of_moved_voxels(codes):
    """A shift by two voxels along y, counted by hand on the arrays."""
    shift = np.eye(4)
    shift[1, 3] = 4.0  # mm: two voxels of the template grid
    dice, _ = own_overlap(laid(codes), laid(codes), [shift])
    moved = np.zeros_like(codes)
    moved[:, :-2] = codes[:, 2:]
    for code in (2, 9, 17):
        one, other = codes == code, moved == code
        wanted = 2 * (one & other).sum() / (one.sum() + other.sum())
        assert dice[code - 1] == pytest.approx(wanted)


def test_brains_that_do_not_meet_have_no_overlap(codes):
    away = np.eye(4)
    away[0, 3] = 500.0
    dice, sizes = own_overlap(laid(codes), laid(codes), [away])
    assert dice.max() == 0
    assert sizes.max() == 0


def test_the_mirrored_view_is_that_of_a_network_that_sees_the_other_side(codes):
    """A network that calls bright voxels left and dim ones right: the mirror exchanges the two."""
    left = NUMBERS.index(10)
    right = int(MIRRORED[left])

    def network(values: Any) -> Any:
        """Everything on the left half of what it sees is a left structure."""
        array = np.asarray(values)[..., 0]
        half = np.arange(array.shape[0]) < array.shape[0] // 2
        answer = np.where(half[:, None, None], left, right) * (array > 0.5)
        return np.eye(CLASSES, dtype=np.float32)[answer]

    image = (codes > 0).astype(np.float32) * 100
    seen = mirrored_view(brain_of(codes, seen=image), network)
    direct = np.argmax(network(np.asarray(codes > 0, np.float32)[..., None]), axis=-1)
    assert (direct > 0).sum() > 1000
    np.testing.assert_array_equal(seen.array, direct)


def test_what_is_ignored_does_not_change_what_the_networks_see(codes, tmp_path):
    """Bright voxels in the ignored part, which the fine network would see otherwise."""
    grey = np.random.default_rng(0).uniform(90, 100, GRID.shape)
    image = np.where(codes > 0, grey, 0).astype(np.float32)
    stem = NUMBERS.index(16)
    lesion = np.zeros(GRID.shape, np.uint8)
    lesion[30:50, 40:60, 30:50] = 1
    write(tmp_path / "lesion.nii.gz", Volume(lesion, GRID.affine))

    def network(values: Any) -> Any:
        """The brain stem is what is bright."""
        bright = np.asarray(values)[..., 0] > 0.8
        return np.eye(CLASSES, dtype=np.float32)[np.where(bright, stem, 0)]

    def bright_voxels(array: np.ndarray, ignore: Path | None) -> int:
        write(tmp_path / "image.nii.gz", Volume(array, GRID.affine))
        side = read_subject("fixed", tmp_path / "image.nii.gz", ignore=ignore)
        seen = sampled(without_ignored(side), np.eye(4), GRID)
        return int((mirrored_view(brain_of(codes, seen=seen), network).array == stem).sum())

    ill = image * (1 + 2 * lesion)
    ignored = bright_voxels(ill, tmp_path / "lesion.nii.gz")
    assert ignored == bright_voxels(image, None)
    assert bright_voxels(ill, None) < 0.5 * ignored


def test_a_record_names_the_structures():
    record = as_record(EstimatedDice(0.7, 0.65, 0.75, 0.5, {10: 0.81234, 49: 0.8}))
    assert record is not None
    assert record["structures"] == {"Left-Thalamus": 0.812, "Right-Thalamus": 0.8}
    assert record["affine"] == 0.5
    assert as_record(None) is None
