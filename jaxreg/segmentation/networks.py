"""The segmentation networks of a folder as functions, loaded once in a process."""

import functools
from pathlib import Path

from jaxreg.models.segmentation_model import SHIPPED, SegmentationModel, read_segmentation_model
from jaxreg.segmentation.segment import Networks


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
