"""The pictures and the table of docs/warps.md: `python experiments/warp_pictures.py --out docs`.

The subject is the ICBM152 template (extra `mni152`), moved by a transform that is known. The files
are those that `jaxreg register`, `apply` and `convert` write, read back as their users would.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from jaxreg import runtime
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.synthetic import simulate
from jaxreg.data.synthetic.icbm import load_template
from jaxreg.evaluation.figures import basic
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import (
    affine_points,
    invert,
    map_points,
    resample,
    resample_by,
)
from jaxreg.io.displacement_fields import write_field
from jaxreg.io.images import read_image, read_labels, write
from jaxreg.io.points import PointTable, read_points, write_points
from jaxreg.registration.apply import apply_files
from jaxreg.registration.convert import convert_file
from jaxreg.registration.run import register_files

SHIFT_MM = np.array([12.0, 8.0, 6.0])
"""RAS: the moving anatomy lies this far to the right, the front and the top of the fixed one."""
_STRUCTURES = "Lateral-Ventricle", "Thalamus", "Putamen"
_OUTLINE: list[Any] = [withStroke(linewidth=2.6, foreground="black")]


@dataclass(frozen=True)
class Config:
    """Draw the pictures and print the table."""

    out: Path = Path("docs")
    """Folder of the pictures."""


def main(config: Config) -> None:
    """Write warps-pull-back.png, warps-shift.png and warps-files.png; print the table."""
    subject = load_template(spacing_mm=2.0)
    images = (np.where(subject.mask, subject.images[d], 0) for d in ("T1w", "T2w"))
    t1w, t2w = (Volume(image, subject.affine) for image in images)
    _save(pull_back(t1w, t2w), config.out / "warps-pull-back.png")
    with tempfile.TemporaryDirectory() as folder:
        figure, rows = shift(t1w, t2w, Path(folder))
        _save(figure, config.out / "warps-shift.png")
        print("\n".join(rows))
    with tempfile.TemporaryDirectory() as folder:
        wanted = [i for i, name in subject.names.items() if any(s in name for s in _STRUCTURES)]
        shown = np.where(np.isin(subject.labels, wanted), subject.labels, 0)
        labels = Volume(shown, subject.affine)
        _save(files(t1w, t2w, labels, Path(folder)), config.out / "warps-files.png")


def pull_back(t1w: Volume, t2w: Volume) -> Figure:
    """The fixed, the moving and the moved image with one voxel x and the place x + u(x)."""
    u = np.array([12.0, 10.0, 0.0])  # RAS mm
    moving = resample(t2w, partial(map_points, [_translation(-u)]), _grid(t2w))
    field = Field(np.broadcast_to(u, (*t1w.array.shape, 3)).astype(np.float32), t1w.affine)
    moved = resample_by(Volume(moving, t2w.affine), field)
    x = np.array([14.0, 24.0, 4.0])  # RAS mm, the front of a lateral ventricle
    titles = (
        "fixed: a voxel x",
        "moving: its value is read at x + u(x)",
        "moved: and written at x",
    )
    figure = Figure(figsize=(9, 3.5), dpi=110, layout="constrained")
    volumes = (t1w.array, moving, moved)
    height = round(_voxel(t1w, x)[2])
    for ax, volume, title in zip(figure.subplots(1, 3), volumes, titles, strict=True):
        basic.show_slice(ax, volume, index=height, spacing_mm=t1w.spacing_mm)
        basic.letters(ax, "axial")
        ax.set_title(title, fontsize=10)
        _mark(ax, _voxel(t1w, x), "x", hollow=volume is moving)
        if volume is moving:
            _mark(ax, _voxel(t1w, x + u), "x + u(x)")
            _arrow(ax, _voxel(t1w, x), _voxel(t1w, x + u))
    return figure


def shift(t1w: Volume, t2w: Volume, folder: Path) -> tuple[Figure, list[str]]:
    """The same shift on an anisotropic LAS grid, in voxels and mm; and rows of a table.

    The rows say what stands at one voxel of the warp in the files of each program.
    """
    affine = t1w.affine @ np.diag([-1.0, 1.0, 3.0, 1.0])  # x runs to the left, slices are 6 mm
    affine[0, 3] += 2.0 * (t1w.array.shape[0] - 1)
    grid = Grid((*t1w.array.shape[:2], t1w.array.shape[2] // 3), affine)
    field = Field(np.broadcast_to(SHIFT_MM, (*grid.shape, 3)).astype(np.float32), affine)
    fixed = resample(t1w, partial(map_points, [np.eye(4)]), grid)
    moving = resample(t2w, partial(map_points, [_translation(-SHIFT_MM)]), grid)
    for name, array in (("fixed", fixed), ("moving", moving)):
        write(folder / f"{name}.nii.gz", Volume(array, affine))
    write_field(folder / "warp.nii.gz", field)
    start = affine_points(np.linalg.inv(affine), np.array([[14.0, 24.0, 4.0]]))[0].round()
    stop = start + np.linalg.inv(affine)[:3, :3] @ SHIFT_MM
    figure = Figure(figsize=(6.4, 3.9), dpi=110, layout="constrained")
    ax = figure.subplots()
    coronal: Any = {"plane": "coronal", "index": round(stop[1])}
    basic.show_slice(ax, moving[::-1], spacing_mm=(2.0, 2.0, 6.0), **coronal)  # right is right
    basic.letters(ax, "coronal")
    flip = np.array([grid.shape[0] - 1, 0, 0]), np.array([-1, 1, 1])
    here, there = (flip[0] + flip[1] * p for p in (start, stop))
    _mark(ax, here[[0, 2]], "x", hollow=True)
    _mark(ax, there[[0, 2]], "x + u(x)")
    _arrow(ax, here[[0, 2]], there[[0, 2]])
    lines: dict = {"color": "0.5", "linewidth": 0.3}
    ax.vlines(np.arange(grid.shape[0]) - 0.5, -0.5, grid.shape[2] - 0.5, **lines)
    ax.hlines(np.arange(grid.shape[2]) - 0.5, -0.5, grid.shape[0] - 0.5, **lines)
    ax.set(xlim=here[0] + [-20.5, 20.5], ylim=here[2] + [-3.5, 4.5])
    ax.set_title("right 12 mm: 6 voxels of 2 mm.  Up 6 mm: 1 voxel of 6 mm", fontsize=10)
    return figure, _rows(folder, tuple(int(i) for i in start))


def _rows(folder: Path, at: tuple[int, ...]) -> list[str]:
    """What the files of each program hold at a voxel, as rows of a Markdown table."""
    warp, moving = folder / "warp.nii.gz", folder / "moving.nii.gz"
    convert_file(warp, "fsl", folder / "fsl.nii.gz", moving=moving)
    convert_file(warp, "freesurfer", folder / "freesurfer.mgh", moving=moving)
    itk = _load(warp)[at][0]
    image = sitk.ReadImage(str(warp), sitk.sitkVectorFloat64)
    lps = image.TransformIndexToPhysicalPoint(at)
    moved = sitk.DisplacementFieldTransform(image).TransformPoint(lps)
    fsl = _load(folder / "fsl.nii.gz")[at]
    data = (folder / "freesurfer.mgh").read_bytes()
    mgh: Any = nib.MGHImage  # pyright: ignore[reportPrivateImportUsage]
    crs = np.asarray(mgh.from_bytes(bytes([0, 0, 0, 1]) + data[4:]).dataobj)[at]
    return [
        "| read by | at voxel | holds | what it is |",
        "|---|---|---|---|",
        f"| nibabel | {_text(at)} | {_text(itk)} | LPS mm, `warp.nii.gz` as stored |",
        f"| ANTs, SimpleITK | point {_text(lps)} | goes to {_text(moved)} | LPS mm |",
        f"| FSL | {_text(at)} | {_text(fsl)} | FSL mm, relative (`--to fsl`) |",
        f"| FreeSurfer | {_text(at)} | {_text(crs)} | moving voxel (`--to freesurfer`) |",
    ]


def files(t1w: Volume, t2w: Volume, labels: Volume, folder: Path) -> Figure:
    """What affine.mat, warp.nii.gz and inverse_warp.nii.gz do to an image, labels and points."""
    landmarks = _write_pair(t1w, t2w, labels, folder)
    settings = RegisterConfig(optimize_only=True, spacing=3.0, lam=0.8)
    paths = {name: folder / f"{name}.nii.gz" for name in ("fixed", "moving")}
    numbers = register_files(paths["fixed"], paths["moving"], folder / "out", settings).metrics
    print({k: round(v, 3) for k, v in numbers.items()})
    figure = Figure(figsize=(9, 6.9), dpi=100, layout="constrained")
    axes = figure.subplots(2, 3)
    for row, (here, there, inverse) in zip(
        axes, (("moving", "fixed", False), ("fixed", "moving", True)), strict=True
    ):
        _show(row[0], folder / here, landmarks[here], f"{here} image, its labels and points")
        name = "inverse_warp.nii.gz" if inverse else "warp.nii.gz"
        for ax, file, backwards in ((row[1], "affine.mat", inverse), (row[2], name, False)):
            transform = [folder / "out" / file]
            common: dict = {"inverse": backwards}
            on = {"reference": paths[there], **common}
            apply_files(transform, image=paths[here], out=folder / "image.nii.gz", **on)
            labels_here = folder / f"{here}_labels.nii.gz"
            apply_files(transform, labels=labels_here, out=folder / "image_labels.nii.gz", **on)
            points = folder / f"{here}.csv"
            apply_files(transform, points=points, out=folder / "image.csv", **common)
            moved = read_points(folder / "image.csv").points
            flag = " --inverse" if backwards else ""
            _show(ax, folder / "image", moved, f"by {file}{flag}", landmarks[there])
    return figure


def _write_pair(t1w, t2w, labels, folder) -> dict[str, np.ndarray]:
    """Write a T1w, and the T2w of the same subject on a grid of its own, turned and deformed.

    Labels and points go with them; returns the points (RAS mm), the same places in both.
    """
    turn = _translation(np.array([10.0, -6.0, 0.0]))
    angle = np.deg2rad(10)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    rng = np.random.default_rng(3)
    u = simulate.random_displacement(rng, t1w.array.shape, spacing_mm=2.0, rms_mm=6, scale_mm=22)
    chain = [Field((2.0 * u * [1, 1, 0]).astype(np.float32), t1w.affine), turn]
    affine = np.diag([-3.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = 111.0, -125.0, -78.0
    grid, back = Grid((72, 72, 44), affine), invert(chain)
    moving = Volume(resample(t2w, lambda points: back(points)[0], grid), affine)
    moved_labels = resample(labels, lambda points: back(points)[0], grid, order=0)
    places = [(0, 60), (28, 4), (-28, 4), (12, -20), (-12, -20), (0, -86)]
    points = {"fixed": np.array([(x, y, 2.0) for x, y in places])}
    points["moving"] = map_points(chain, points["fixed"])
    for name, image, numbers in (
        ("fixed", t1w, labels),
        ("moving", moving, Volume(moved_labels, affine)),
    ):
        write(folder / f"{name}.nii.gz", image)
        write(folder / f"{name}_labels.nii.gz", numbers)
        table = PointTable(points[name], ["x", "y", "z"], [[]] * len(places))
        write_points(folder / f"{name}.csv", table)
    return points


def _show(ax: Axes, stem: Path, points, title: str, rings: np.ndarray | None = None) -> None:
    """An axial slice at z = 2 mm, outlines of its labels, points (+) and their true places (○)."""
    image, labels = read_image(f"{stem}.nii.gz"), read_labels(f"{stem}_labels.nii.gz")
    height = round(_voxel(image, np.array([0.0, 0.0, 2.0]))[2])
    basic.show_slice(ax, image.array, index=height, spacing_mm=image.spacing_mm)
    for structure in np.unique(labels.array[:, :, height])[1:]:
        inside = (labels.array[:, :, height].T == structure).astype(float)
        ax.contour(inside, [0.5], colors="white", linewidths=0.8).set_path_effects(_OUTLINE)
    style: dict = {"color": "white", "path_effects": _OUTLINE, "linestyle": "none"}
    for where, marker in ((points, "+"), (rings, "o")):
        if where is not None:
            x, y = np.array([_voxel(image, p)[:2] for p in where]).T
            ax.plot(x, y, marker=marker, markersize=9, fillstyle="none", **style)
    basic.letters(ax, "axial")
    ax.set_title(title, fontsize=10)


def _grid(volume: Volume) -> Grid:
    x, y, z = volume.array.shape
    return Grid((x, y, z), volume.affine)


def _translation(shift_mm: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = shift_mm
    return matrix


def _voxel(volume: Volume, point_mm: np.ndarray) -> np.ndarray:
    """Voxel index of a point."""
    return affine_points(np.linalg.inv(volume.affine), point_mm[None])[0]


def _mark(ax: Axes, at: np.ndarray, name: str, *, hollow: bool = False) -> None:
    style: dict = {"path_effects": _OUTLINE, "fillstyle": "none" if hollow else "full"}
    ax.plot(at[0], at[1], "o", color="white", markersize=7, **style)
    below: dict = {"textcoords": "offset points", "color": "white", "path_effects": _OUTLINE}
    ax.annotate(name, (at[0], at[1]), (8, -10 if hollow else 6), fontsize=11, **below)


def _arrow(ax: Axes, start: np.ndarray, stop: np.ndarray) -> None:
    arrow: dict = {"arrowstyle": "->", "color": "white", "linewidth": 1.5, "mutation_scale": 14}
    arrow |= {"shrinkA": 4, "shrinkB": 5, "path_effects": _OUTLINE}
    ax.annotate("", (stop[0], stop[1]), (start[0], start[1]), arrowprops=arrow)


def _load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)  # pyright: ignore


def _text(values: Sequence[float] | np.ndarray) -> str:
    return "(" + ", ".join(f"{v:g}" for v in np.round(values, 3) + 0.0) + ")"


def _save(figure: Figure, path: Path) -> None:
    """Write the figure in grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(basic.to_rgb(figure)).convert("L").save(path, optimize=True)


if __name__ == "__main__":
    runtime.prepare()
    main(tyro.cli(Config, description=__doc__))
