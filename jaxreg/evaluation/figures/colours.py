"""Colours of structures, for pictures with and without Matplotlib."""

import bisect
import colorsys
import functools

import numpy as np
from jaxtyping import Float

DICE_COLOURS = {
    0.0: "#c51b1b",
    0.5: "#f98e2b",
    0.6: "#ffe55c",
    0.7: "#7fc4ea",
    0.8: "#1f6fb2",
}
"""A colour for each step of Dice, from where the step begins: red to yellow becomes brighter, light
to dark blue darker, so that readers with any kind of colour vision can tell them apart."""


def dice_colour(dice: float) -> Float[np.ndarray, "3"]:
    """The colour (RGB in [0, 1]) of a Dice, by the step in which it lies."""
    step = bisect.bisect_right([*DICE_COLOURS], dice) - 1
    code = [*DICE_COLOURS.values()][max(step, 0)]
    return np.array([int(code[k : k + 2], 16) / 255 for k in (1, 3, 5)])


@functools.cache
def structure_colours() -> Float[np.ndarray, "256 3"]:
    """A colour (RGB in [0, 1]) for each number of a structure, neighbours far apart; 0 is black."""
    colours = [colorsys.hsv_to_rgb(0.618 * n % 1, 0.75, 0.95) for n in range(256)]
    return np.array([(0.0, 0.0, 0.0), *colours[1:]])
