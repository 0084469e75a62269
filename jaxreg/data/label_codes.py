"""FreeSurfer's numbers as the small contiguous codes that the segmentation network answers with.

Code 0 is everything outside the brain, 1 to 31 are the structures of `STRUCTURES` in ascending
order, 32 is the rest of the brain (24: fluid, vessels, dura). Codes from 33 on are classes of the
head around the brain: they make training images and are background to the network.
"""

import numpy as np
from jaxtyping import Int, UInt8

from jaxreg.data.prepare.freesurfer_labels import STRUCTURES, merge_parcels

REST_NUMBER = 24
"""FreeSurfer's number for fluid, here for all of the brain that is no structure."""
NUMBERS = (0, *sorted(STRUCTURES), REST_NUMBER)
"""FreeSurfer's number of each code that the network knows."""
CLASSES = len(NUMBERS)
"""How many classes the network tells apart, the background included."""
REST = CLASSES - 1
"""Code of the rest of the brain."""
HEAD_NUMBERS = (500, 530)
"""First and last number of the extra-cerebral classes of a label map of the whole head."""
CLUSTERS = 5
"""Into how many classes of intensity the head around the brain is split where it has no labels."""
FIRST_HEAD = CLASSES
"""Code of the class 500."""
FIRST_CLUSTER = FIRST_HEAD + HEAD_NUMBERS[1] - HEAD_NUMBERS[0] + 1
"""Code of the darkest cluster."""
CODES = FIRST_CLUSTER + CLUSTERS
"""How many codes there are."""


def _mirrored() -> np.ndarray:
    """The code of the same structure on the other side, for every code."""
    numbers = {name: number for number, name in STRUCTURES.items()}
    other = np.arange(CODES, dtype=np.uint8)
    for code, number in enumerate(NUMBERS[1:-1], start=1):
        side, _, rest = STRUCTURES[number].partition("-")
        partner = {"Left": "Right-", "Right": "Left-"}.get(side, f"{side}-") + rest
        other[code] = NUMBERS.index(numbers.get(partner, number))
    return other


MIRRORED = _mirrored()
"""The code of the same structure on the other side, for every code; its own in the middle."""


def encode(labels: Int[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    """The codes of a map of FreeSurfer's numbers; unknown ones below 500 are rest of the brain."""
    labels = merge_parcels(labels)
    first, last = HEAD_NUMBERS
    table = np.full(last + 1, REST, np.uint8)
    for code, number in enumerate(NUMBERS):
        table[number] = code
    table[first:] = FIRST_HEAD + np.arange(last - first + 1)
    return table[np.clip(labels, 0, last)]


def decode(codes: UInt8[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """FreeSurfer's numbers of the network's codes."""
    return np.asarray(NUMBERS, np.uint8)[codes]
