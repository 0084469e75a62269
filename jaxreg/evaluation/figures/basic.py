"""Figures: NumPy arrays in, a matplotlib `Figure` out.

matplotlib is used in this package only. Volumes are RAS arrays `[x, y, z]` of
intensities in [0, 1]; displacements are in voxels. Pictures are in the neurological convention: the
subject's left is on the left of axial and coronal slices, the front on the right of sagittal ones,
and front (axial) or top is up. Axes are in voxels, stretched by the spacing. No figure touches
pyplot, a backend or any other global state.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jaxreg import spatial
from jaxreg.evaluation.statistics import best_index

Plane = Literal["axial", "coronal", "sagittal"]

# Array axes of a plane: normal, to the right in the picture, up in it.
_AXES: dict[Plane, tuple[int, int, int]] = {
    "axial": (2, 0, 1),
    "coronal": (1, 0, 2),
    "sagittal": (0, 1, 2),
}
_LETTERS = ("LR", "PA", "IS")  # the low and the high end of each array axis

# The colours of Okabe and Ito, told apart by colour-blind readers; marker and dash serve in grey.
LINES = (
    ("#000000", "o", "-"),
    ("#0072b2", "s", "--"),
    ("#d55e00", "^", "-."),
    ("#009e73", "D", ":"),
    ("#cc79a7", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#e69f00", "P", (0, (8, 2))),
    ("#56b4e9", "X", (0, (1, 2))),
)
_FOLD = "#00d000"
_ERROR_TOP = 0.25
_DETERMINANTS = LogNorm(0.5, 2.0)
_DETERMINANT_MAP = colormaps["RdBu_r"].with_extremes(bad=_FOLD)


class Curve(NamedTuple):
    """What one loss reaches at each λ, averaged over the pairs.

    Attributes:
        name: as it stands in the legend.
        lams: λ, ascending, in [0, 1].
        dice_mean: mean Dice over pairs, in [0, 1].
        dice_sem: standard error of that mean, drawn as a band of ± one: the standard deviation over
            pairs is far wider than what separates the losses, and nearly the same for all.
        folds_percent: mean percentage of folding voxels.
    """

    name: str
    lams: Float[np.ndarray, " l"]
    dice_mean: Float[np.ndarray, " l"]
    dice_sem: Float[np.ndarray, " l"]
    folds_percent: Float[np.ndarray, " l"]


def lambda_curves(curves: Sequence[Curve], *, baseline: float | None = None) -> Figure:
    """Dice and folding voxels against λ, a line per loss (the paper's Fig. 2).

    The filled marker is a loss's best mean Dice, on both panels. `baseline` is the mean Dice with
    no registration. Folds are on a logarithmic scale that is linear near 0.
    """
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = []
    for curve, (color, marker, dash) in zip(curves, cycle(LINES), strict=False):
        style: dict = {"color": color, "marker": marker, "linestyle": dash, "linewidth": 1.2}
        style |= {"markersize": 4.5, "markerfacecolor": "white"}
        low, high = curve.dice_mean - curve.dice_sem, curve.dice_mean + curve.dice_sem
        left.fill_between(curve.lams, low, high, color=color, alpha=0.13, linewidth=0)
        handles += left.plot(curve.lams, curve.dice_mean, label=curve.name, **style)
        right.plot(curve.lams, curve.folds_percent, clip_on=False, **style)
        best = best_index(curve.dice_mean)
        style["markerfacecolor"] = color
        left.plot(curve.lams[best], curve.dice_mean[best], **style)
        right.plot(curve.lams[best], curve.folds_percent[best], clip_on=False, **style)
    if baseline is not None:
        line = left.axhline(baseline, color="0.4", linewidth=1, linestyle=(0, (4, 3)))
        line.set_label("no registration")
        handles.append(line)
    left.set_ylabel("Dice (higher is better)", fontsize=9)
    right.set_ylabel("folding voxels [%] (lower is better)", fontsize=9)
    folds_axis(right, np.concatenate([curve.folds_percent for curve in curves]))
    for ax in (left, right):
        ax.set_xlabel("regularization strength λ", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.92", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def folds_axis(ax, folds):
    """Scale the folds so that 0 shows as 0 and small percentages as well as large ones."""
    positive = folds[folds > 0]
    if not positive.size:
        ax.set_ylim(0, 1)
        ax.text(0.5, 0.5, "no folding voxels", transform=ax.transAxes, ha="center", color="0.4")
        return
    decade = 10.0 ** np.floor(np.log10(positive.min()))
    ax.set_yscale("symlog", linthresh=decade, linscale=0.5)
    ax.set_ylim(0, 2 * positive.max())


def pair_progress(
    fixed: Float[np.ndarray, "x y z"],
    moving: Float[np.ndarray, "x y z"],
    moved: Float[np.ndarray, "x y z"],
    displacement: Float[np.ndarray, "x y z 3"],
    *,
    title: str = "",
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Figure:
    """One registered pair in its three middle planes: images, checkerboard, grid, det J.

    The determinant map is logarithmic: red where the moving brain is larger than the fixed one
    (det J > 1), blue where it is smaller, green where the warp folds (det J ≤ 0).
    """
    determinant = np.asarray(spatial.jacobian_determinant(jnp.asarray(displacement)))
    widths, heights = zip(*(sides_mm(fixed.shape, p, spacing_mm) for p in _AXES), strict=True)
    size = (6 * 1.75 + 0.6, sum(heights) / max(widths) * 1.75 + 0.7)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(3, 6, squeeze=False, height_ratios=heights)
    for plane, row in zip(_AXES, axes, strict=True):
        index = fixed.shape[_AXES[plane][0]] // 2
        place = {"plane": plane, "index": index, "spacing_mm": spacing_mm}
        for ax, volume in zip(row, (fixed, moving, moved), strict=False):
            show_slice(ax, volume, **place)
        show_slice(row[3], _checkerboard(fixed, moved), **place)
        warped_grid(row[4], displacement, **place)
        _show_determinant(row[5], determinant, **place)
        letters(row[0], plane)
    names = ("fixed", "moving", "moved", "fixed | moved", "grid x + u(x)", "det J")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, fontsize=9)
    scale = ScalarMappable(_DETERMINANTS, _DETERMINANT_MAP)
    bar = figure.colorbar(
        scale, ax=axes, ticks=[0.5, 1, 2], shrink=0.5, aspect=25, pad=0.01, extend="both"
    )
    bar.ax.set_yticklabels(["½", "1", "2"])
    bar.ax.minorticks_off()
    return figure


def _checkerboard(fixed, moved, tiles=6):
    """Fixed and moved volume in turn, `tiles` along the longest axis."""
    side = max(max(fixed.shape) // tiles, 1)
    odd = sum(i // side for i in np.indices(fixed.shape)) % 2
    return np.where(odd == 1, moved, fixed)


def lambda_sweep_rows(
    fixed: Float[np.ndarray, "x y z"],
    moving: Float[np.ndarray, "x y z"],
    moved: Float[np.ndarray, "l x y z"],
    displacements: Float[np.ndarray, "l x y z 3"],
    lams: Float[np.ndarray, " l"],
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    plane: Plane = "axial",
    index: int | None = None,
) -> Figure:
    """Moved images above their warped grids across λ, the pair at the left (the paper's Fig. 4)."""
    titles = [f"λ = {lam:g}" for lam in np.round(lams, 3)]
    return moved_and_grids(
        fixed, moving, moved, displacements, titles, spacing_mm=spacing_mm, plane=plane, index=index
    )


def moved_and_grids(
    fixed: Float[np.ndarray, "x y z"],
    moving: Float[np.ndarray, "x y z"],
    moved: Float[np.ndarray, "n x y z"],
    displacements: Float[np.ndarray, "n x y z 3"],
    titles: Sequence[str],
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    plane: Plane = "axial",
    index: int | None = None,
) -> Figure:
    """Moved images above their warped grids, one column a title, the pair at the left.

    With the losses as titles this is the paper's Fig. 3. `index` is the voxel of the slice along
    the plane's normal, by default the middle one.
    """
    place = {"plane": plane, "index": index, "spacing_mm": spacing_mm}
    across, up = sides_mm(fixed.shape, plane, spacing_mm)
    width = 1.05
    size = ((len(titles) + 1.2) * width, 2 * (width * up / across + 0.15))
    tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=size, dpi=150, layout=tight)
    axes = figure.subplots(
        2, len(titles) + 2, squeeze=False, width_ratios=[1, 0.1] + [1] * len(titles)
    )
    for ax, volume, title in zip(axes[:, 0], (fixed, moving), ("fixed", "moving"), strict=True):
        show_slice(ax, volume, **place)
        ax.set_title(title, fontsize=8, pad=2)
    letters(axes[0, 0], plane)
    for ax in axes[:, 1]:
        ax.set_axis_off()
    for i, title in enumerate(titles):
        show_slice(axes[0, i + 2], moved[i], **place)
        warped_grid(axes[1, i + 2], displacements[i], **place)
        axes[0, i + 2].set_title(title, fontsize=8, pad=2)
    return figure


def reconstructions(
    images: Sequence[tuple[str, Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]]],
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    plane: Plane = "axial",
) -> Figure:
    """Original, reconstruction and absolute difference in the middle slice, a column an image.

    `images` are (title, original, reconstruction); differences are shown from 0 to 0.25 of the
    intensity range.
    """
    across, up = sides_mm(images[0][1].shape, plane, spacing_mm)
    size = (1.7 * len(images) + 0.8, 3 * 1.7 * up / across + 0.4)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots(3, len(images), squeeze=False)
    place = {"plane": plane, "spacing_mm": spacing_mm}
    for column, (title, original, reconstruction) in zip(axes.T, images, strict=True):
        show_slice(column[0], original, **place)
        show_slice(column[1], reconstruction, **place)
        error = np.abs(reconstruction - original)
        show_slice(column[2], error, top=_ERROR_TOP, cmap="magma", **place)
        column[0].set_title(title, fontsize=9)
    for ax, name in zip(axes[:, 0], ("original", "reconstruction", "|difference|"), strict=True):
        ax.set_ylabel(name, fontsize=9)
    letters(axes[0, 0], plane)
    scale = ScalarMappable(Normalize(0, _ERROR_TOP), "magma")
    figure.colorbar(
        scale, ax=axes, ticks=[0, _ERROR_TOP], shrink=0.3, anchor=(0, 0), pad=0.02, extend="max"
    )
    return figure


def show_slice(
    ax: Axes,
    volume: Float[np.ndarray, "x y z"],
    *,
    plane: Plane = "axial",
    index: int | None = None,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    top: float = 1.0,
    cmap: str = "gray",
) -> AxesImage:
    """Draw a slice (by default the middle one); black is 0 and white is `top`."""
    style: dict = {"cmap": cmap, "vmin": 0, "vmax": top, "origin": "lower"}
    picture = ax.imshow(slice_of(volume, plane, index), **style)
    _frame(ax, plane, spacing_mm)
    return picture


def warped_grid(
    ax: Axes,
    displacement: Float[np.ndarray, "x y z 3"],
    *,
    plane: Plane = "axial",
    index: int | None = None,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    step: int = 4,
) -> None:
    """Draw every `step`-th line of the fixed grid at x + u(x): where the moving image is sampled.

    The lines lie over the moving image, not over the moved one. The two components in the plane are
    drawn, the one across it is dropped.
    """
    _, across, up = _AXES[plane]
    u, v = (slice_of(displacement[..., a], plane, index) for a in (across, up))
    rows, columns = np.indices(u.shape)
    points = np.stack([columns + u, rows + v], axis=-1)
    starts = [(n - 1) % step // 2 for n in u.shape]
    lines = [*points[starts[0] :: step], *points[:, starts[1] :: step].swapaxes(0, 1)]
    ax.add_collection(LineCollection(lines, colors="0.1", linewidths=0.45))
    _frame(ax, plane, spacing_mm)
    ax.set_xlim(-0.5, u.shape[1] - 0.5)
    ax.set_ylim(-0.5, u.shape[0] - 0.5)


def _show_determinant(ax, determinant, *, plane, index, spacing_mm):
    """Draw a slice of det J, diverging around 1 on a logarithmic scale, folds in green."""
    values = slice_of(determinant, plane, index)
    values = np.ma.masked_where(values <= 0, values)
    ax.imshow(values, cmap=_DETERMINANT_MAP, norm=_DETERMINANTS, origin="lower")
    _frame(ax, plane, spacing_mm)


def slice_of(volume, plane, index):
    """Picture [up, across] of a slice, both indices ascending with those of the volume."""
    normal = _AXES[plane][0]
    return np.take(volume, volume.shape[normal] // 2 if index is None else index, axis=normal).T


def sides_mm(shape, plane, spacing_mm):
    """Width and height of a plane's picture."""
    _, across, up = _AXES[plane]
    return shape[across] * spacing_mm[across], shape[up] * spacing_mm[up]


def _frame(ax, plane, spacing_mm):
    """Bare axes of a plane, with the proportions of the subject (imshow resets them)."""
    _, across, up = _AXES[plane]
    ax.set_aspect(spacing_mm[up] / spacing_mm[across])
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def letters(ax, plane):
    """Mark the left and the right side of a picture, in the corners that a head leaves black."""
    low, high = _LETTERS[_AXES[plane][1]]
    style = {"color": "white", "fontsize": 8, "va": "top", "transform": ax.transAxes}
    ax.text(0.03, 0.98, low, ha="left", **style)
    ax.text(0.97, 0.98, high, ha="right", **style)


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure in the format of the path's suffix (.png, .pdf, .svg); no date is recorded."""
    dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    metadata = dated.get(Path(path).suffix.lower().lstrip("."))
    figure.savefig(path, dpi=200, metadata=metadata)


def to_rgb(figure: Figure) -> UInt8[np.ndarray, "h w 3"]:
    """The figure as pixels, first row at the top, at the figure's own resolution."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
