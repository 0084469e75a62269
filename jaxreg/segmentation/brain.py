"""A brain that was found in an image: what lies where on the template grid laid onto it."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from jaxreg.data.label_codes import CLASSES, REST, decode
from jaxreg.geometry.grid import Grid
from jaxreg.segmentation.template import GRID


@dataclass(frozen=True)
class FoundBrain:
    """A brain that was found in an image, on the template grid laid onto it.

    `codes` has the likeliest class at each voxel of the template grid. `to_image` takes the
    template grid's space to the image's (RAS millimetres). `fit_mm` is how far the structures lie
    from the template's after the affine fit, root mean square. `volumes_ml` has the volume of each
    structure by FreeSurfer's number. `seen` is the image on the template grid. `probabilities` are
    None after `without_probabilities`.
    """

    codes: UInt8[np.ndarray, "i j k"]
    to_image: Float[np.ndarray, "4 4"]
    fit_mm: float
    volumes_ml: dict[int, float]
    seen: Float32[np.ndarray, "i j k"]
    probabilities: Float32[np.ndarray, "i j k c"] | None

    def without_probabilities(self) -> "FoundBrain":
        """The brain where nobody will read it on another grid any more: 80 MB less to hold."""
        return dataclasses.replace(self, probabilities=None)

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Voxels of the template grid to the image's millimetres."""
        return self.to_image @ GRID.affine

    @property
    def litres(self) -> float:
        """The volume of the brain, its fluid and what else is in it included."""
        return sum(self.volumes_ml.values()) / 1000


def found_brain(
    probabilities: Float32[np.ndarray, "i j k c"],
    to_image: Float[np.ndarray, "4 4"],
    seen: Float32[np.ndarray, "i j k"],
    *,
    fit_mm: float,
) -> FoundBrain:
    """The brain that the probability of each class on the template grid shows."""
    volumes = volumes_ml(probabilities, to_image)
    return FoundBrain(likeliest(probabilities), to_image, fit_mm, volumes, seen, probabilities)


def overlap(
    one: UInt8[np.ndarray, "i j k"], other: UInt8[np.ndarray, "i j k"]
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """(Dice, voxels of the smaller one) of each structure of two maps of codes on one grid."""
    both = np.bincount(one[one == other], minlength=REST + 1)
    first, second = (np.bincount(codes.ravel(), minlength=REST + 1) for codes in (one, other))
    dice = 2 * both / np.maximum(first + second, 1)
    return dice[1:REST], np.minimum(first, second)[1:REST].astype(float)


def likeliest(probabilities: Float32[np.ndarray, "i j k c"]) -> UInt8[np.ndarray, "i j k"]:
    """The code of the largest probability at each voxel."""
    return np.argmax(probabilities, axis=-1).astype(np.uint8)


def volumes_ml(
    probabilities: Float32[np.ndarray, "i j k c"], to_image: Float[np.ndarray, "4 4"]
) -> dict[int, float]:
    """Millilitres of each structure by FreeSurfer's number, from the probabilities."""
    sums = probabilities.reshape(-1, CLASSES).sum(axis=0, dtype=np.float64)
    sums *= Grid(GRID.shape, to_image @ GRID.affine).voxel_ml
    numbers = decode(np.arange(CLASSES, dtype=np.uint8))
    return {int(n): float(v) for n, v in zip(numbers, sums, strict=True) if n}
