"""Left and right exchanged, which the data pipeline does to all volumes of a sample or to none."""

import numpy as np
from jaxtyping import Shaped


def mirrored(volume: Shaped[np.ndarray, "x *rest"]) -> Shaped[np.ndarray, "x *rest"]:
    """A volume [x, y, z, …] mirrored along its first axis, left and right in RAS."""
    return np.ascontiguousarray(volume[::-1])
