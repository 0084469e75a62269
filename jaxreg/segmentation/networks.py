"""The segmentation networks of a folder as functions, loaded once in a process."""

import functools
import threading
from collections.abc import Callable
from pathlib import Path

from jaxreg.distributed import require_platform
from jaxreg.geometry.grid import Volume
from jaxreg.models.segmentation_model import SHIPPED, SegmentationModel, read_segmentation_model
from jaxreg.segmentation.segment import Networks, Segmentation, segment_volume

BUNDLED = "bundled"
"""The networks that come with jaxreg, in place of a folder."""


def brain_finder(folder: Path | None) -> Callable[[Volume], Segmentation]:
    """What segments images with the networks of a folder, one at a time whatever the threads.

    None is for the bundled networks, which are read when they are needed first.

    Raises:
        InputError: the folder holds no readable segmentation model, or JAX finds no device.
    """
    require_platform()
    if folder is not None:
        load_segmentation(folder)
    lock = threading.Lock()

    def find(image: Volume) -> Segmentation:
        with lock:
            _, networks = load_segmentation(folder)
            return segment_volume(image, networks)

    return find


def load_named_segmentation(name: Path) -> tuple[SegmentationModel, Networks]:
    """The networks that a flag of training names: `bundled`, or a folder.

    Raises:
        InputError: the folder holds no readable segmentation model.
    """
    return load_segmentation(None if str(name) == BUNDLED else name)


@functools.lru_cache(maxsize=2)
def load_segmentation(folder: Path | None) -> tuple[SegmentationModel, Networks]:
    """The networks of a folder, None for the bundled ones, and the model that they are.

    Raises:
        InputError: the folder holds no readable segmentation model.
    """
    model = read_segmentation_model(SHIPPED if folder is None else folder)
    return model, Networks(
        functools.partial(model.probabilities, "coarse"),
        functools.partial(model.probabilities, "fine"),
    )
