"""Colours of structures, for pictures with and without Matplotlib."""

import colorsys
import functools

import numpy as np
from jaxtyping import Float


@functools.cache
def structure_colours() -> Float[np.ndarray, "256 3"]:
    """A colour (RGB in [0, 1]) for each number of a structure, neighbours far apart; 0 is black."""
    colours = [colorsys.hsv_to_rgb(0.618 * n % 1, 0.75, 0.95) for n in range(256)]
    return np.array([(0.0, 0.0, 0.0), *colours[1:]])
