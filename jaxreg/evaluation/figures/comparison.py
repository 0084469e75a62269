"""The paper's Figures 2 to 4 over several runs: NumPy arrays in, a matplotlib `Figure` out.

Widths are those of a page (7.2 inches). A run is told by marker and dash as well as by colour.
Pictures are one axial slice, `[x, y, 1]`, in the conventions of `figures`; displacements are in
voxels, spacings in millimetres.
"""

import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from jaxreg.evaluation.figures.basic import (
    LINES,
    folds_axis,
    letters,
    show_slice,
    sides_mm,
    warped_grid,
)

_WIDTH = 7.2
_SMALL = 7
_LETTERS_PER_INCH = 14  # at the size of a title
_EDGE = "#ffb000"


class Line(NamedTuple):
    """What a run reaches at each λ on the test split, subject by subject.

    Attributes:
        name: as it stands in the legend.
        lams: λ, ascending, in [0, 1].
        dice: mean Dice of each subject, in [0, 1].
        folds_percent: folding voxels of each subject, in %.
        chosen: index of the λ that was chosen on the validation split.
    """

    name: str
    lams: Float[np.ndarray, " l"]
    dice: Float[np.ndarray, "l u"]
    folds_percent: Float[np.ndarray, "l u"]
    chosen: int


class Slices(NamedTuple):
    """One pair under a run's λs.

    Attributes:
        name: the run's.
        lams: λ, ascending, in [0, 1].
        moved: the moving image seen through each warp, in [0, 1].
        displacements: the warps, in voxels.
        dice: the pair's mean Dice at each λ, in [0, 1].
        chosen: index of the λ that was chosen on the validation split.
    """

    name: str
    lams: Float[np.ndarray, " l"]
    moved: Float[np.ndarray, "l x y 1"]
    displacements: Float[np.ndarray, "l x y 1 3"]
    dice: Float[np.ndarray, " l"]
    chosen: int


def dice_and_folds(lines: Sequence[Line], *, baseline: float) -> Figure:
    """Dice and folding voxels against λ, a line per run (the paper's Fig. 2).

    Lines are means over subjects, bands ± one standard error of them. The filled marker is the λ
    chosen on the validation split. `baseline` is the mean Dice with no registration. Folds are on a
    logarithmic scale that is linear near 0.
    """
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = []
    for line, look in zip(lines, cycle(LINES), strict=False):
        handles.append(_draw(left, line, line.dice, look))
        _draw(right, line, line.folds_percent, look)
    none = left.axhline(baseline, color="0.4", linewidth=1, linestyle=(0, (4, 3)))
    none.set_label("no registration")
    left.set_ylabel("Dice (higher is better)", fontsize=9)
    right.set_ylabel("folding voxels [%] (lower is better)", fontsize=9)
    folds_axis(right, np.concatenate([line.folds_percent.mean(axis=1) for line in lines]))
    right.set_ylim(bottom=0)
    for ax in (left, right):
        ax.set_xlabel("regularization strength λ", fontsize=9)
        ax.set_xlim(-0.03, 1.03)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.92", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.legend(
        handles=[*handles, none],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
        handlelength=3.2,
        title=f"mean ± standard error over {lines[0].dice.shape[1]} subjects; "
        "filled: λ chosen on the validation split",
        title_fontsize=8,
    )
    return figure


def _draw(ax, line, values, look):
    """One run's line, band and filled marker on a panel."""
    color, marker, dash = look
    style: dict = {"color": color, "marker": marker, "linestyle": dash, "linewidth": 1.2}
    style |= {"markersize": 4.5, "markerfacecolor": "white", "clip_on": False}
    mean = values.mean(axis=1)
    if values.shape[1] > 1:
        error = values.std(axis=1, ddof=1) / values.shape[1] ** 0.5
        low, high = np.maximum(mean - error, 0), mean + error
        ax.fill_between(line.lams, low, high, color=color, alpha=0.1, linewidth=0)
    (drawn,) = ax.plot(line.lams, mean, label=line.name, **style)
    style["markerfacecolor"] = color
    ax.plot(line.lams[line.chosen], mean[line.chosen], zorder=3, **style)
    return drawn


def best_registrations(
    fixed: Float[np.ndarray, "x y 1"],
    moving: Float[np.ndarray, "x y 1"],
    runs: Sequence[Slices],
    *,
    baseline: float,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Figure:
    """One pair under each run at its chosen λ, bare and under the fixed image's edges (Fig. 3).

    `baseline` is the pair's mean Dice with no registration.
    """
    pictures = [fixed, moving, *(run.moved[run.chosen] for run in runs)]
    panel = min(_WIDTH / len(pictures), 1.4)
    names = [textwrap.wrap(run.name, int(panel * _LETTERS_PER_INCH)) for run in runs]
    titles = ["fixed", "moving", *("\n".join(lines) for lines in names)]
    below = ["", f"Dice {baseline:.3f}"]
    below += [f"λ = {run.lams[run.chosen]:g}\nDice {run.dice[run.chosen]:.3f}" for run in runs]
    shape = sides_mm(fixed.shape, "axial", spacing_mm)
    figure, axes = _sheet(
        2, [panel] * len(pictures), shape, top=0.05 + 0.14 * max(map(len, names)), bottom=0.32
    )
    for column, title, text, picture in zip(axes.T, titles, below, pictures, strict=True):
        for ax in column:
            show_slice(ax, picture, spacing_mm=spacing_mm)
        _draw_edges(column[1], fixed)
        column[0].set_title(title, fontsize=_SMALL + 1, pad=2)
        column[1].set_xlabel(text, fontsize=_SMALL, labelpad=2)
    letters(axes[0, 0], "axial")
    return figure


def _draw_edges(ax, image):
    """The strong edges of a slice over a picture: zero crossings of the Laplacian of Gaussian."""
    picture = image[..., 0].T
    slope = ndimage.gaussian_gradient_magnitude(picture, 1.0, mode="nearest")
    curvature = ndimage.gaussian_laplace(picture, 1.0, mode="nearest")
    strong = slope > 0.35 * np.percentile(slope, 99)
    if not strong.any():
        return
    weak = np.logical_not(ndimage.binary_dilation(strong))
    lines = ax.contour(np.ma.masked_where(weak, curvature), [0.0], colors=_EDGE, linewidths=0.55)
    lines.set_path_effects([withStroke(linewidth=1.1, foreground="black")])


def sweeps(
    fixed: Float[np.ndarray, "x y 1"],
    moving: Float[np.ndarray, "x y 1"],
    runs: Sequence[Slices],
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    columns: int = 11,
) -> Figure:
    """Moved images and warped grids across λ, two rows a run, the pair at the left (Fig. 4).

    At most `columns` of the λs are shown, evenly chosen from the first to the last; the picture of
    a run that has one λ alone stands in the column nearest to it. The frame is the λ chosen on the
    validation split.
    """
    levels = max((run.lams for run in runs), key=len)
    levels = levels[np.unique(np.linspace(0, len(levels) - 1, columns).round().astype(int))]
    panel = min((_WIDTH - 0.2) / (len(levels) + 1), 0.9)
    shape = sides_mm(fixed.shape, "axial", spacing_mm)
    widths = [panel, 0.2, *[panel] * len(levels)]
    figure, axes = _sheet(2 * len(runs), widths, shape, top=0.17, bottom=0.17)
    for ax in axes[:, :2].ravel():
        ax.set_axis_off()
    for ax, picture in zip(axes[:2, 0], (fixed, moving), strict=True):
        show_slice(ax, picture, spacing_mm=spacing_mm)
    axes[0, 0].set_title("fixed", fontsize=_SMALL, pad=2)
    style: dict = {"ha": "center", "va": "top", "fontsize": _SMALL}
    axes[1, 0].text(0.5, -0.03, "moving", transform=axes[1, 0].transAxes, **style)
    letters(axes[0, 0], "axial")
    for ax, lam in zip(axes[0, 2:], levels, strict=True):
        ax.set_title(f"λ = {lam:g}", fontsize=_SMALL, pad=2)
    for run, above, below in zip(runs, axes[::2], axes[1::2], strict=True):
        style = {"rotation": 90, "ha": "center", "va": "center", "fontsize": _SMALL + 1}
        above[1].text(0.5, 0, run.name, transform=above[1].transAxes, **style)
        _draw_sweep(run, levels, above[2:], below[2:], spacing_mm)
    return figure


def _draw_sweep(run, levels, above, below, spacing_mm):
    """A run's moved images and grids in two rows of axes, a column for each of `levels`."""
    for column, (top, bottom) in enumerate(zip(above, below, strict=True)):
        i = int(np.argmin(np.abs(run.lams - levels[column])))
        if np.argmin(np.abs(levels - run.lams[i])) != column:
            top.set_axis_off()
            bottom.set_axis_off()
            continue
        show_slice(top, run.moved[i], spacing_mm=spacing_mm)
        warped_grid(bottom, run.displacements[i], spacing_mm=spacing_mm)
        if i == run.chosen:
            _frame(top)
        if not np.isclose(run.lams[i], levels[column]):
            style: dict = {"color": "white", "fontsize": _SMALL, "ha": "center", "va": "bottom"}
            top.text(0.5, 0.0, f"λ = {run.lams[i]:g}", transform=top.transAxes, **style)


def _frame(ax: Axes):
    """A thick border around a picture."""
    ax.spines[:].set(visible=True, color=_EDGE, linewidth=1.5)


def _sheet(rows, widths_in, sides_mm, *, top, bottom, gap=0.03):
    """A figure and its axes [rows, columns], in inches: pictures in the proportions of the slice.

    `top` and `bottom` are the margins for titles and labels, `gap` what parts two pictures.
    """
    panel = widths_in[0]
    height_in = panel * sides_mm[1] / sides_mm[0]
    size = sum(widths_in), rows * height_in + top + bottom
    figure = Figure(figsize=size, dpi=200)
    axes = np.empty((rows, len(widths_in)), object)
    for row, column in np.ndindex(*axes.shape):
        x = sum(widths_in[:column]) + gap / 2
        y = size[1] - top - (row + 1) * height_in + gap / 2
        box = (x / size[0], y / size[1])
        box += ((widths_in[column] - gap) / size[0], (height_in - gap) / size[1])
        axes[row, column] = figure.add_axes(box)
    return figure, axes
