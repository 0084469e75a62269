"""The files of a registration: moved images, whole-map warps, the affine, the Jacobian."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume, sparser_grid
from jaxreg.geometry.transforms import (
    Chain,
    compose_chain,
    jacobian_determinant,
    resample_by,
)
from jaxreg.io.displacement_fields import write_field
from jaxreg.io.images import FileGeometry, reordered, smallest_labels, write_like
from jaxreg.io.itk_transforms import write_affine
from jaxreg.io.tables import write_table
from jaxreg.registration.register import Registration
from jaxreg.runtime import in_threads

STEP_MM = 1 / 128
"""Warps are multiples of it, so each component is off by 0.004 mm at most."""


class Outputs(NamedTuple):
    """What is written, on the stored grids of the two images (axes in the files' order).

    `warp` leads from the fixed grid to the moving space, `inverse_warp` from the moving grid to the
    fixed space, each with the affine in it, and each on fewer voxels where the configuration asks
    for that (`warp_spacing`). `moved` is moved by `warp` as it is written. `jacobian` is that of
    the deformable part alone, in physical space. The labels are there if the moving image has some,
    `affine_labels` (by the affine alone) if the fixed one has too.
    """

    warp: Field
    inverse_warp: Field
    moved: Float[np.ndarray, "x y z"]
    jacobian: Float[np.ndarray, "x y z"]
    moved_labels: Int[np.ndarray, "x y z"] | None
    affine_labels: Int[np.ndarray, "x y z"] | None


def make_outputs(result: Registration) -> Outputs:
    """The whole map on both images' grids, and what it moves, each resampled once."""
    fixed, moving = result.fixed, result.moving
    grid = fixed.header.grid
    whole, inverse = in_threads(
        partial(compose_chain, result.chain, grid),
        partial(_stored, result, result.inverse_chain, moving.header.grid),
    )
    unrounded = whole
    if result.config.warp_spacing is None:
        warp = whole = _rounded(whole)
    else:
        warp = _stored(result, result.chain, grid)
        whole = compose_chain([warp], grid)
    labels, affine_labels = None, None
    if moving.labels is not None:
        labels = resample_by(moving.labels, whole, order=0)
        if fixed.labels is not None:
            linear = written_map([result.affine], grid)
            affine_labels = resample_by(moving.labels, linear, order=0)
    determinant, moved = in_threads(
        partial(jacobian_determinant, unrounded), partial(resample_by, moving.image, whole)
    )
    # The map is the affine after the deformation, so its determinant is the product of theirs.
    jacobian = determinant / np.float32(np.linalg.det(result.affine[:3, :3]))
    return Outputs(warp, inverse, moved, jacobian, labels, affine_labels)


def _stored(result: Registration, chain: Chain, grid: Grid) -> Field:
    """The map of a chain as a file holds it: on a grid, or on every so many voxels of it."""
    spacing = result.config.warp_spacing
    return written_map(chain, grid if spacing is None else sparser_grid(grid, spacing))


def write_outputs(result: Registration, outputs: Outputs, folder: Path) -> None:
    """Write images, warps and affine into an existing folder; equal results give equal bytes."""
    like = result.fixed.header.geometry
    jobs = {
        "warp": partial(write_field, folder / "warp.nii.gz", outputs.warp),
        "inverse_warp": partial(write_field, folder / "inverse_warp.nii.gz", outputs.inverse_warp),
        "moved": partial(_write_shortened, folder / "moved.nii.gz", outputs.moved, like),
        "jacobian": partial(_write_shortened, folder / "jacobian.nii.gz", outputs.jacobian, like),
        "affine": partial(write_affine, folder / "affine.mat", result.affine),
        "masks": partial(_write_masks, result, folder),
    }
    if outputs.moved_labels is not None:
        array = smallest_labels(outputs.moved_labels)
        jobs["moved_labels"] = partial(write_like, folder / "moved_labels.nii.gz", array, like)
    in_threads(*(job for name, job in jobs.items() if name in result.config.written))


def _write_masks(result: Registration, folder: Path) -> None:
    """Write the brains that segmentation found."""
    for role, subject in (("fixed", result.fixed), ("moving", result.moving)):
        if subject.extracted:
            own = Volume(subject.mask, subject.image.affine)
            mask = reordered(own, subject.header.grid).astype(np.uint8)
            write_like(folder / f"{role}_mask.nii.gz", mask, subject.header.geometry)


def written_map(chain: Chain, grid: Grid) -> Field:
    """The map of a chain on a grid as a file holds it, in multiples of `STEP_MM`."""
    return _rounded(compose_chain(chain, grid))


def _rounded(field: Field) -> Field:
    """A field in multiples of `STEP_MM`: what float32 holds beyond that is half of a file."""
    steps = field.vectors * np.float32(1 / STEP_MM)
    np.rint(steps, out=steps)
    steps *= np.float32(STEP_MM)
    return Field(steps, field.affine)


def _write_shortened(path: Path, values: Float[np.ndarray, "x y z"], like: FileGeometry) -> None:
    """Write float32 with 12 significant bits, 0.024 % off at most: files of half the size.

    The error is a share of each value, so that an outlier does not make the others coarser, as it
    would with the scale factor of int16.
    """
    bits = values.astype(np.float32).view(np.uint32)
    bits += np.uint32(1 << 11)
    bits &= np.uint32(0xFFFFF000)
    write_like(path, bits.view(np.float32), like)


def write_curve(result: Registration, folder: Path) -> None:
    """Write a sweep: its numbers (`curve.tsv`), and the moved image of every λ."""
    rows = []
    for point in result.curve:
        chosen = "yes" if point is result.chosen else "no"
        numbers = (point.similarity, point.folds_percent, point.sdlogj)
        rows.append((f"{point.lam:g}", *(f"{number:.6f}" for number in numbers), chosen))
        mapping = written_map(result.chain_of(point), result.fixed.header.grid)
        moved = resample_by(result.moving.image, mapping)
        name = f"moved_lam-{point.lam:.1f}.nii.gz"
        _write_shortened(folder / name, moved, result.fixed.header.geometry)
    header = ("lam", "similarity", "folds_percent", "sdlogj", "chosen")
    write_table(folder / "curve.tsv", header, rows)
