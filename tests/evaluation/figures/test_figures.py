"""Figures: what is drawn where, in pixels and in the artists' own coordinates."""

import sys
from typing import cast

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaxreg.evaluation.figures import basic

SHAPE = (20, 26, 14)
SPACING_MM = (2.0, 1.0, 3.0)
RNG = np.random.default_rng(0)
FIXED, MOVING = RNG.random((2, *SHAPE), np.float32)
MOVED = RNG.random((3, *SHAPE), np.float32)
DISPLACEMENTS = RNG.normal(scale=0.1, size=(3, *SHAPE, 3)).astype(np.float32)
LAMS = np.array([0.0, 0.5, 1.0])


def _curves(*, folds=(0.5, 0.001, 0.0)):
    dice = np.array([0.62, 0.66, 0.64])
    sem = np.full(3, 0.01)
    return [
        basic.Curve(name, LAMS, dice + shift, sem, np.array(folds))
        for name, shift in (("NCE + MI", 0.0), ("MI", 0.02))
    ]


def _pair(displacement=DISPLACEMENTS[0]):
    return basic.pair_progress(
        FIXED, MOVING, MOVED[0], displacement, title="step 10", spacing_mm=SPACING_MM
    )


def _sweep():
    return basic.lambda_sweep_rows(
        FIXED, MOVING, MOVED, DISPLACEMENTS, LAMS, spacing_mm=SPACING_MM, plane="coronal", index=5
    )


DRAW = {
    "curves": lambda: basic.lambda_curves(_curves(), baseline=0.6),
    "pair": _pair,
    "sweep": _sweep,
    "losses": lambda: basic.moved_and_grids(FIXED, MOVING, MOVED, DISPLACEMENTS, ["a", "b", "c"]),
    "reconstructions": lambda: basic.reconstructions(
        [("T1w", FIXED, MOVED[0]), ("T2w", MOVING, MOVED[1])], spacing_mm=SPACING_MM
    ),
}


@pytest.mark.parametrize("name", DRAW)
def test_pictures_have_their_size_and_contents_and_need_no_pyplot(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it raises
    figure = DRAW[name]()
    rgb = basic.to_rgb(figure)
    width, height = (figure.get_size_inches() * figure.dpi).astype(int)
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8
    assert rgb.std() > 10 and (rgb != 255).any(axis=-1).mean() > 0.02


def _single_axes():
    figure = Figure(figsize=(2, 2), dpi=60, facecolor="black")
    return figure, figure.add_axes((0, 0, 1, 1))


@pytest.mark.parametrize(
    ("plane", "across", "up"), [("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)]
)
def test_right_or_front_is_on_the_right_and_front_or_top_is_up(plane, across, up):
    for axis, end in ((across, 1), (across, 0), (up, 1), (up, 0)):
        volume = np.zeros(SHAPE, np.float32)
        half = [slice(None)] * 3
        half[axis] = slice(-3, None) if end else slice(0, 3)
        volume[tuple(half)] = 1
        figure, ax = _single_axes()
        basic.show_slice(ax, volume, plane=plane, spacing_mm=SPACING_MM)
        bright = basic.to_rgb(figure)[::-1, :, 0] > 128  # bottom row first
        rows, columns = np.nonzero(bright)
        side = (columns if axis == across else rows) >= 60
        assert side.all() if end else not side.any()


def test_letters_name_the_sides():
    figure = _pair()
    for row, (low, high) in enumerate((("L", "R"), ("L", "R"), ("P", "A"))):
        texts = {t.get_text(): t.get_position()[0] for t in figure.axes[6 * row].texts}
        assert set(texts) == {low, high} and texts[low] < 0.5 < texts[high]


@pytest.mark.parametrize("name", ["pair", "sweep", "reconstructions"])
def test_pictures_have_the_proportions_of_the_subject(name):
    figure = DRAW[name]()
    basic.to_rgb(figure)
    x, y, z = np.array(SHAPE) * SPACING_MM
    expected = {"pair": x / y, "sweep": x / z, "reconstructions": x / y}[name]
    box = figure.axes[0].get_window_extent()
    np.testing.assert_allclose(box.width / box.height, expected, rtol=1e-3)


def _lines(ax):
    (collection,) = ax.collections
    return np.array(cast(LineCollection, collection).get_segments(), object)


def test_a_warped_grid_passes_through_x_plus_u_of_its_plane():
    u = np.arange(np.prod(SHAPE) * 3).reshape(*SHAPE, 3) / 1e4
    _, ax = _single_axes()
    basic.warped_grid(ax, u, plane="coronal", index=5, step=5)
    x, z = np.meshgrid(np.arange(20), np.arange(14), indexing="ij")
    points = np.stack([x + u[:, 5, :, 0], z + u[:, 5, :, 2]], axis=-1)
    across, along = points[:, 1::5].swapaxes(0, 1), points[2::5]
    for line, expected in zip(_lines(ax), [*across, *along], strict=True):
        np.testing.assert_allclose(np.asarray(line, float), expected)


def test_a_shift_across_the_plane_leaves_the_grid_straight():
    u = np.zeros((*SHAPE, 3))
    u[..., 1] = 3
    _, ax = _single_axes()
    basic.warped_grid(ax, u, plane="coronal")
    assert all((np.ptp(np.asarray(line, float), axis=0) == 0).any() for line in _lines(ax))


def test_folds_are_marked_green_on_the_determinant_map():
    def green(displacement):
        rgb = basic.to_rgb(_pair(displacement)).astype(int)
        return ((rgb[..., 1] > 180) & (rgb[..., [0, 2]].max(axis=-1) < 60)).sum()

    folded = np.zeros((*SHAPE, 3), np.float32)
    assert green(folded) == 0
    folded[10, 13, 6:9, 0] = 5
    assert green(folded) > 20


def test_the_sweep_shows_each_lam_in_its_column():
    axes = np.array(_sweep().axes).reshape(2, 5)
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), FIXED[:, 5].T)
    np.testing.assert_array_equal(axes[1, 0].images[0].get_array(), MOVING[:, 5].T)
    for i, title in enumerate(("λ = 0", "λ = 0.5", "λ = 1")):
        np.testing.assert_array_equal(axes[0, i + 2].images[0].get_array(), MOVED[i, :, 5].T)
        assert axes[0, i + 2].get_title() == title


def test_reconstructions_show_the_absolute_difference():
    axes = np.array(DRAW["reconstructions"]().axes[:6]).reshape(3, 2)
    expected = np.abs(MOVING - MOVED[1])[:, :, 7].T
    np.testing.assert_array_equal(axes[2, 1].images[0].get_array(), expected)


def test_curves_mark_the_best_lam_and_the_baseline():
    left, right = basic.lambda_curves(_curves(), baseline=0.6).axes
    points = [line.get_xydata() for line in left.lines if line.get_markerfacecolor() != "white"]
    np.testing.assert_allclose(np.concatenate(points[:2]), [(0.5, 0.66), (0.5, 0.68)])
    assert left.lines[-1].get_label() == "no registration"
    np.testing.assert_array_equal(left.lines[-1].get_ydata(), [0.6, 0.6])
    assert right.get_yscale() == "symlog" and right.get_ylim()[0] == 0


def test_curves_without_a_single_fold_say_so():
    _, right = basic.lambda_curves(_curves(folds=(0, 0, 0))).axes
    assert right.get_yscale() == "linear"
    assert [t.get_text() for t in right.texts] == ["no folding voxels"]


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_the_same_figure_gives_the_same_bytes(suffix, tmp_path):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    for path in (first, second):
        basic.save(DRAW["curves"](), path)
    assert first.read_bytes() == second.read_bytes() and first.stat().st_size > 5000
