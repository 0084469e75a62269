"""A saved transform on images, labels and points: what `jaxreg apply` does."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from jaxreg.errors import InputError, require_choice
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid
from jaxreg.geometry.transforms import Chain, invert, map_points, nearest_affine
from jaxreg.io.atomic import claimed_file, completed
from jaxreg.io.displacement_fields import read_field
from jaxreg.io.headers import read_header
from jaxreg.io.images import NIFTI, image_like, save
from jaxreg.io.itk_geometry import forms_apart
from jaxreg.io.itk_transforms import read_transform
from jaxreg.io.points import Convention, PointTable, read_points, write_points
from jaxreg.io.remarks import WARNING
from jaxreg.io.stored_images import Source
from jaxreg.registration.moved import Moved, Notes, moved

Interpolation = Literal["nearest", "linear", "bspline", "label"]
_ITK = (".mat", ".tfm", ".txt", ".xfm", ".h5", ".hdf5")
_ALIKE, _SMALL_MM = 0.3, 2.0
"""How far an affine may lie, of its own size, from the one nearest to a field that contains it; of
smaller ones than this nothing is said."""


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


@dataclass(frozen=True)
class Applied:
    """What transforms make of an image, a label map or points.

    Attributes:
        image: the moved image, label map or 4-D series on the grid of the reference, None for
            points.
        points: the moved points [n, 3] in RAS mm, None for an image.
        residual_mm: the largest distance that the numerical inverse of a field left; 0 where no
            field was inverted.
        remarks: what a user should know of the files and of the inverse, a sentence each.
        warnings: what makes the result doubtful, a sentence each.
    """

    image: Any
    points: Float[np.ndarray, "n 3"] | None
    residual_mm: float
    remarks: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    _table: PointTable | None = None

    def save(self, path: Path | str) -> Path:
        """Write what `jaxreg apply --out` writes: NIfTI for an image, CSV for points.

        Args:
            path: the file; .nii or .nii.gz, or .csv for points.

        Returns:
            The path of the file.

        Raises:
            InputError: another suffix, or the file cannot be written.

        Examples:
            >>> import jaxreg
            >>> landmarks = [[12.0, -30.5, 8.0]]
            >>> jaxreg.apply("run/affine.mat", points=landmarks).save("landmarks.csv").name
            'landmarks.csv'
        """
        _check_output(path, points=self.points is not None)
        with claimed_file(path), completed(path) as temporary:
            if self._table is not None:
                write_points(temporary, self._table)
            else:
                save(temporary, self.image)
        return Path(path)


def apply_chain(
    chain: Chain,
    *,
    image: Source | None = None,
    labels: Source | None = None,
    points: PointTable | None = None,
    reference: Source | None = None,
    inverse: bool = False,
    interpolation: Interpolation | None = None,
    fill: float = 0.0,
    finish: Callable[[Moved], Any] = Moved.image,
) -> Applied:
    """A chain applied to one image, label map or table of points.

    An image goes onto the grid of `reference` in one resampling, float32 and by default linear,
    `fill` outside its field of view; labels by default by nearest neighbour; every volume of a 4-D
    image alike. Points go where the image goes, from the moving to the fixed space, so they take
    the inverse of the map by which the image is pulled back. With `inverse` everything goes from
    the fixed to the moving space. Fields are inverted numerically. `finish` makes the image of the
    result of what was moved, or writes that to a file.

    Raises:
        InputError: not exactly one of image, labels and points, a reference that is missing or too
            many, or an image that cannot be read or used.
    """
    _check_options(image, labels, points, reference)
    how = _how(interpolation, fill, image=image is not None, points=points is not None)
    inverted = inverse if points is None else not inverse
    residuals: list[np.ndarray] = []
    mapping = _mapping(chain, residuals) if inverted else functools.partial(map_points, chain)
    notes = Notes()
    notes.warnings.extend(affine_twice(chain))
    result, table = None, None
    if points is not None:
        table = points._replace(points=mapping(points.points))
        notes.warnings.extend(_convention(points))
    else:
        source = labels if image is None else image
        assert source is not None and reference is not None
        target = notes.of(read_header(reference, series=True))
        result = finish(
            moved(
                source,
                mapping,
                target.grid,
                functools.partial(image_like, like=target.geometry),
                labels=image is None,
                notes=notes,
                onto=reference,
                **how,
            )
        )
        own = read_header(source, series=True).grid
        notes.warnings.extend(wrong_way(chain, own, target.grid, inverse=inverse))
    residual_mm = 0.0
    if inverted and any(isinstance(element, Field) for element in chain):
        residual_mm, remarks = _left_behind(residuals, "voxels" if table is None else "points")
        notes.remarks[:0] = remarks
    moved_points = None if table is None else table.points
    return Applied(
        result, moved_points, residual_mm, tuple(notes.remarks), tuple(notes.warnings), table
    )


def affine_twice(chain: Chain) -> list[str]:
    """A warning where a field of the chain seems to contain an affine of the chain already.

    That is the case where the affine nearest to the field is like the other one, or its inverse.
    """
    fields = [element for element in chain if isinstance(element, Field)]
    for matrix in (element for element in chain if not isinstance(element, Field)):
        for field in fields:
            size_mm = _apart_mm(matrix, np.eye(4), field.grid)
            own, limit_mm = nearest_affine(field), _ALIKE * size_mm
            both = (matrix, np.linalg.inv(matrix))
            nearest_mm = min(_apart_mm(own, other, field.grid) for other in both)
            if size_mm > _SMALL_MM and nearest_mm < limit_mm:
                return [
                    "the displacement field seems to contain the affine that is given with it; "
                    "warp.nii.gz of a run is the whole map, and must not be combined with the "
                    "affine.mat of that run."
                ]
    return []


def wrong_way(chain: Chain, image: Grid, reference: Grid, *, inverse: bool) -> list[str]:
    """A warning where an image has the field of view that its reference should have, or reversed.

    A field lies on the grid of the space that it brings images to (from, with `inverse`). Where all
    grids are in one place, as in a cohort in a common space, nothing can be said.
    """
    fields = [element for element in chain if isinstance(element, Field)]
    if len(fields) != 1:
        return []
    field = fields[0].grid
    here, there = (reference, image) if inverse else (image, reference)
    if same_view(here, field) and not same_view(there, field):
        begins = "the reference" if inverse else "the image"
        other = "without --inverse" if inverse else "by the run's other warp, or with --inverse"
        return [
            f"{begins} lies on the grid of the displacement field, where only "
            f"{'the image' if inverse else 'the reference'} should: this looks like the wrong way "
            f"round; from the other side it goes {other}."
        ]
    if same_view(image, reference) and not same_view(image, field):
        return [
            "the image and the reference lie on one grid, and the displacement field on another: "
            f"the reference should be the {'moving' if inverse else 'fixed'} image of the "
            "registration."
        ]
    return []


def same_view(one: Grid, other: Grid) -> bool:
    """Whether two grids show the same box, whatever their voxels are, to one of the larger ones."""
    corners = [_corners(grid) for grid in (one, other)]
    voxel_mm = max(float(np.linalg.norm(g.affine[:3, :3], axis=0).max()) for g in (one, other))
    apart = np.linalg.norm(corners[0][:, None] - corners[1][None], axis=-1)
    return bool(apart.min(axis=1).max() < voxel_mm)


def _corners(grid: Grid) -> Float[np.ndarray, "8 3"]:
    """The outer corners of the corner voxels, in mm."""
    ends = [(-0.5, n - 0.5) for n in grid.shape]
    voxels = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    return (grid.affine[:3, :3] @ voxels).T + grid.affine[:3, 3]


def _apart_mm(one: np.ndarray, other: np.ndarray, grid: Grid) -> float:
    """How far two affines take a corner of a grid apart, at most."""
    return forms_apart(one @ grid.affine, other @ grid.affine, grid.shape)[0]


def apply_files(
    transforms: Sequence[Path | str],
    *,
    image: Path | str | None = None,
    labels: Path | str | None = None,
    points: Path | str | None = None,
    reference: Path | str | None = None,
    out: Path | str,
    inverse: bool = False,
    interpolation: Interpolation | None = None,
    fill: float = 0.0,
    points_convention: Convention = "ras",
) -> list[str]:
    """Apply transform files to one image, label map or CSV of points; returns lines to print.

    As `apply_chain`, from files to the file `out`. Of a 4-D image neither file is held in memory.

    Raises:
        InputError: any file that is missing or not what it must be, options that do not fit, or an
            output that cannot be written.
    """
    _check_options(image, labels, points, reference)
    inputs = [Path(p) for p in (*transforms, image, labels, points, reference) if p is not None]
    _check_output(out, points=points is not None)
    with claimed_file(out, inputs=inputs):
        chain = load_chain(transforms)
        table = None if points is None else read_points(points, convention=points_convention)
        with completed(out) as temporary:
            applied = apply_chain(
                chain,
                image=image,
                labels=labels,
                points=table,
                reference=reference,
                inverse=inverse,
                interpolation=interpolation,
                fill=fill,
                finish=functools.partial(Moved.write, path=temporary),
            )
            if applied._table is not None:
                write_points(temporary, applied._table)
    return [*(f"{WARNING}{line}" for line in applied.warnings), *applied.remarks]


def _convention(points: PointTable) -> list[str]:
    """A warning where a table of ANTs was not read as LPS."""
    if not points.looks_like_ants or points.convention == "lps":
        return []
    return [
        "the points have the columns x,y,z,t of antsApplyTransformsToPoints, which are LPS; they "
        "were read as RAS. Give --points-convention lps where they are LPS."
    ]


def _mapping(chain: Chain, residuals: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of a chain as a function of points; adds what inverting left to `residuals`."""
    push = invert(chain)

    def mapping(points: np.ndarray) -> np.ndarray:
        mapped, residual_mm = push(points)
        residuals.append(residual_mm.astype(np.float32))
        return mapped

    return mapping


def _left_behind(residuals: list[np.ndarray], noun: str) -> tuple[float, tuple[str, ...]]:
    """The largest distance that the numerical inverse left behind, and that in words."""
    residual_mm = np.concatenate(residuals)
    outside = np.isnan(residual_mm)
    worst = float(residual_mm[~outside].max(initial=0))
    lines = [f"inverse of the field: residual at most {worst:.4f} mm"]
    if outside.any():
        lines.append(
            f"{outside.sum()} of {outside.size} {noun} come from beyond the field's grid, where "
            "it is continued by its affine part and border values"
        )
    return worst, tuple(lines)


def _how(
    interpolation: Interpolation | None, fill: float, *, image: bool, points: bool
) -> dict[str, Any]:
    """The arguments of `resample`.

    Raises:
        InputError: an interpolation that is not there or does not fit, or a fill that is no number.
    """
    if points:
        if interpolation is not None or fill != 0:
            raise InputError("--interpolation, --fill: not read with --points.")
        return {}
    fitting = ("nearest", "linear", "bspline") if image else ("nearest", "label")
    chosen = interpolation or ("linear" if image else "nearest")
    require_choice("interpolation", chosen, fitting)
    if not np.isfinite(fill) or (not image and fill != round(fill)):
        kind = "a number" if image else "a whole number, since labels are"
        raise InputError(f"--fill: expected {kind}, got {fill}.")
    order = {"nearest": 0, "label": 0, "linear": 1, "bspline": 3}[chosen]
    return {"order": order, "smooth_labels": chosen == "label", "fill": fill}


def _check_options(image: Any, labels: Any, points: Any, reference: Any) -> None:
    given = [part for part in (image, labels, points) if part is not None]
    if len(given) != 1:
        raise InputError(f"expected one of --image, --labels, --points; got {len(given)}.")
    if points is None and reference is None:
        raise InputError("--reference: expected the image whose grid the result lies on, got none.")
    if points is not None and reference is not None:
        raise InputError("--reference: points need none, expected it with --image or --labels.")


def _check_output(out: Path | str, *, points: bool) -> None:
    suffixes = (".csv",) if points else NIFTI
    if not str(out).endswith(suffixes):
        raise InputError(f"{out}: expected an output name that ends in {' or '.join(suffixes)}.")
