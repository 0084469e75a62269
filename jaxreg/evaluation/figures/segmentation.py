"""A segmentation over its image: slices of three planes with the brain's outline and structures."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jaxreg.evaluation.figures.basic import Plane, letters, show_slice, sides_mm, slice_of
from jaxreg.evaluation.figures.colours import structure_colours

_PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
_NORMAL = {"axial": 2, "coronal": 1, "sagittal": 0}
_SLICES = 4
_WIDTH_IN = 10.0


def _colours() -> ListedColormap:
    """The structures' colours over an image: 0 is transparent."""
    return ListedColormap([(0, 0, 0, 0), *((*rgb, 0.45) for rgb in structure_colours()[1:])])


def segmentation_slices(
    image: Float[np.ndarray, "x y z"],
    labels: UInt8[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> Figure:
    """Four slices through the brain in each of three planes, RAS arrays.

    The brain mask is outlined, its structures are coloured. White is the 99.5th percentile of the
    image within the mask.
    """
    inside = np.argwhere(mask)
    low, high = inside.min(axis=0), inside.max(axis=0)
    top = float(np.percentile(image[mask], 99.5)) or 1.0
    heights = [
        sides_mm(image.shape, p, spacing_mm)[1] / sides_mm(image.shape, p, spacing_mm)[0]
        for p in _PLANES
    ]
    figure = Figure((_WIDTH_IN, _WIDTH_IN / _SLICES * sum(heights)), layout="constrained")
    axes = figure.subplots(3, _SLICES, height_ratios=heights, squeeze=False)
    colours = _colours()
    for row, plane in enumerate(_PLANES):
        normal = _NORMAL[plane]
        shares = (np.arange(_SLICES) + 1) / (_SLICES + 1)
        for ax, share in zip(axes[row], shares, strict=True):
            index = round(float(low[normal] + share * (high[normal] - low[normal])))
            picture = show_slice(
                ax, image, plane=plane, index=index, spacing_mm=spacing_mm, top=top
            )
            ax.imshow(
                slice_of(labels, plane, index),
                cmap=colours,
                vmin=0,
                vmax=255,
                origin="lower",
                interpolation="nearest",
                extent=picture.get_extent(),
                aspect=ax.get_aspect(),
            )
            outline = slice_of(mask, plane, index)
            if outline.any():
                ax.contour(outline.astype(float), [0.5], colors="yellow", linewidths=0.6)
        letters(axes[row, 0], plane)
    return figure
