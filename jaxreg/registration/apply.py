"""A saved transform on images, labels and points: what `jaxreg apply` does."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.transforms import (
    Chain,
    invert,
    map_points,
    resample,
)
from jaxreg.io.atomic import completed
from jaxreg.io.displacement_fields import read_field
from jaxreg.io.headers import read_header
from jaxreg.io.images import NIFTI, read_image, read_labels, write_like
from jaxreg.io.itk_transforms import read_transform
from jaxreg.io.points import read_points, write_points

_ITK = (".mat", ".tfm", ".txt", ".xfm", ".h5", ".hdf5")


def load_chain(paths: Sequence[Path | str]) -> list[np.ndarray | Field]:
    """The chain that transform files make, named in the order of antsApplyTransforms.

    The last named is applied to the image first. A chain maps points the other way, from fixed to
    moving, so its elements are in the order in which the files are named.

    Raises:
        InputError: no file, a suffix that names no transform, or an unreadable file.
    """
    if not paths:
        raise InputError("transform: expected at least one file, got none.")
    chain = []
    for path in paths:
        if str(path).endswith(NIFTI):
            chain.append(read_field(path))
        elif str(path).endswith(_ITK):
            chain.extend(read_transform(path))
        else:
            known = ", ".join((*NIFTI, *_ITK))
            raise InputError(f"{path}: expected a transform ({known}).")
    return chain


def apply_files(
    transforms: Sequence[Path | str],
    *,
    image: Path | str | None = None,
    labels: Path | str | None = None,
    points: Path | str | None = None,
    reference: Path | str | None = None,
    out: Path | str,
    inverse: bool = False,
) -> list[str]:
    """Apply a chain to one image, label map or CSV of points; returns lines to print.

    An image goes onto the grid of `reference` in one resampling: linear, float32, 0 outside its
    field of view; labels by nearest neighbour. Points go where the image goes, from the moving to
    the fixed space, so they take the inverse of the map by which the image is pulled back. With
    `inverse` everything goes from the fixed to the moving space. Fields are inverted numerically.

    Raises:
        InputError: any file that is missing or not what it must be, or options that do not fit.
    """
    _check_options(transforms, image, labels, points, reference, out)
    chain = load_chain(transforms)
    inverted = inverse if points is None else not inverse
    residuals: list[np.ndarray] = []
    mapping = _mapping(chain, residuals) if inverted else functools.partial(map_points, chain)
    if points is not None:
        table = read_points(points)
        moved = table._replace(points=mapping(table.points))
        with completed(out) as path:
            write_points(path, moved)
    elif reference is not None:
        grid = read_header(reference).grid
        read_header(image or labels or "")
        if image is not None:
            array = resample(read_image(image), mapping, grid)
        else:
            array = smallest(resample(read_labels(labels or ""), mapping, grid, order=0))
        with completed(out) as path:
            write_like(path, array, reference)
    if inverted and any(isinstance(element, Field) for element in chain):
        return _report(residuals, "voxels" if points is None else "points")
    return []


def _mapping(chain: Chain, residuals: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of a chain as a function of points; adds what inverting left to `residuals`."""
    push = invert(chain)

    def mapping(points: np.ndarray) -> np.ndarray:
        mapped, residual_mm = push(points)
        residuals.append(residual_mm.astype(np.float32))
        return mapped

    return mapping


def _report(residuals: list[np.ndarray], noun: str) -> list[str]:
    """What the numerical inverse left behind, in words."""
    residual_mm = np.concatenate(residuals)
    outside = np.isnan(residual_mm)
    worst = residual_mm[~outside].max(initial=0)
    lines = [f"inverse of the field: residual at most {worst:.4f} mm"]
    if outside.any():
        lines.append(
            f"{outside.sum()} of {outside.size} {noun} come from beyond the field's grid, where "
            "it is continued by its affine part and border values"
        )
    return lines


def _check_options(transforms, image, labels, points, reference, out) -> None:
    given = [path for path in (image, labels, points) if path is not None]
    if len(given) != 1:
        raise InputError(f"expected one of --image, --labels, --points; got {len(given)}.")
    if points is None and reference is None:
        raise InputError("--reference: expected the image whose grid the result lies on, got none.")
    if points is not None and reference is not None:
        raise InputError("--reference: points need none, expected it with --image or --labels.")
    suffixes = NIFTI if points is None else (".csv",)
    if not str(out).endswith(suffixes):
        raise InputError(f"{out}: expected an output name that ends in {' or '.join(suffixes)}.")
    inputs = [p for p in (*transforms, *given, reference) if p is not None]
    if any(Path(p).resolve() == Path(out).resolve() for p in inputs):
        raise InputError(f"{out}: expected an output that is no input of the same command.")


def smallest(labels: np.ndarray) -> np.ndarray:
    """Labels in the smallest NIfTI type that holds them."""
    low, high = labels.min(initial=0), labels.max(initial=0)
    for dtype in (np.uint8, np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return labels.astype(dtype)
    return labels
