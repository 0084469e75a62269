"""Labels for training subjects who have none: what a frozen segmentation network sees in them.

Each image that needs them is segmented once, before the first step; its labels stay in memory on
the training grid, numbered as those of the cohort (`--teacher`).
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import UInt8

from jaxreg.data.label_codes import CLASSES, NUMBERS, REST
from jaxreg.data.prepare.freesurfer_labels import STRUCTURES
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.io.images import Remark, read_image, unheard
from jaxreg.segmentation.own_grid import codes_on
from jaxreg.segmentation.segment import Networks, find_brain

TaughtLabels = Mapping[tuple[str, str], UInt8[np.ndarray, "x y z"]]
"""Labels of an image by (participant, domain), as the batches number them, on the training grid."""


def taught_labels(
    volumes: Volumes,
    images: Iterable[tuple[str, str]],
    networks: Networks,
    *,
    remark: Remark = unheard,
) -> TaughtLabels:
    """The labels of each of some images, (participant, domain), on the grid of the volumes.

    They are numbered from 1 in the order of the cohort's structures, or of the standard ones where
    the cohort names none; 0 elsewhere. An image without a brain has 0 everywhere, so that its pairs
    are trained by their similarity alone; `remark` gets a line on it.

    Raises:
        InputError: no image shows a brain, or the cohort names none of the standard structures.
    """
    cohort = volumes.cohort
    numbers = sorted(cohort.structures or STRUCTURES)
    table = np.zeros(CLASSES, np.uint8)
    for code, number in enumerate(NUMBERS[1:REST], start=1):
        table[code] = numbers.index(number) + 1 if number in numbers else 0
    if not table.any():
        raise InputError(
            f"{cohort.folder / 'labels.tsv'}: expected some of FreeSurfer's numbers 2 to 60 (for "
            f"--teacher), got {', '.join(map(str, numbers[:5]))} …"
        )
    found = {}
    for participant, domain in images:
        path = cohort.file(participant, domain)
        try:
            codes, _ = codes_on(find_brain(read_image(path), networks), volumes.grid)
        except InputError as error:
            remark(f"{path}: the teacher gives no labels: {error}")
            codes = np.zeros(volumes.shape, np.uint8)
        found[participant, domain] = table[codes]
    if found and not any(labels.any() for labels in found.values()):
        raise InputError(f"{cohort.folder}: the teacher finds no brain in any of the images.")
    return found
