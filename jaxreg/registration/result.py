"""What `jaxreg.register` returns: the moved image, the transform, the numbers, and `save`."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxreg.errors import InputError, in_arguments, speaks_of_arguments
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import compose_chain, map_points
from jaxreg.io.atomic import claimed, claimed_file, completed
from jaxreg.io.displacement_fields import write_field
from jaxreg.io.headers import read_header
from jaxreg.io.images import (
    NIFTI,
    ImageLike,
    image_like,
    image_of,
    smallest_labels,
    source_of,
)
from jaxreg.io.itk_transforms import write_affine
from jaxreg.io.points import points_of
from jaxreg.registration.finished import Finished
from jaxreg.registration.moved import Notes, moved
from jaxreg.registration.output.checks import Verdict


class Transform(NamedTuple):
    """A map between the spaces of two images; an image goes from `source_grid` to `grid`.

    Attributes:
        chain: the map that pulls back, from points of `grid`'s space to the other one.
        inverse_chain: its inverse.
        grid: the grid of the fixed image.
        source_grid: the grid of the moving image.
    """

    chain: list
    inverse_chain: list
    grid: Grid
    source_grid: Grid

    @property
    def inverse(self) -> "Transform":
        """The map the other way."""
        return Transform(self.inverse_chain, self.chain, self.source_grid, self.grid)

    def apply(
        self,
        image: ImageLike,
        *,
        labels: bool = False,
        reference: ImageLike | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Any:
        """The image moved.

        Args:
            image: an image of the moving space, or a 4-D series of them.
            labels: whether it is a label map, which is moved by nearest neighbour; otherwise the
                interpolation is linear.
            reference: image whose grid the result lies on; by default the fixed image's grid (of an
                inverse, the moving image's).
            say: a function that gets what is odd in the files, such as `print`. By default
                what makes the result doubtful is a UserWarning of Python.

        Returns:
            A nibabel image.

        Raises:
            InputError: an image that cannot be read or used, or that the map never meets.
        """
        notes, grid, target = Notes(), self.grid, "the grid of the fixed image"
        if reference is not None:
            target = source_of(reference, "reference")
            grid = notes.of(read_header(target, series=True)).grid
        result = moved(
            source_of(image, "image"),
            partial(map_points, self.chain),
            grid,
            lambda array: image_of(Volume(array, grid.affine)),
            labels=labels,
            notes=notes,
            onto=target,
            order=0 if labels else 1,
        ).image()
        if say is None:
            for line in notes.warnings:
                warnings.warn(in_arguments(line, Transform.apply), stacklevel=2)
        else:
            for line in notes.lines():
                say(in_arguments(line, Transform.apply))
        return result

    def apply_points(self, points: ArrayLike) -> Float[np.ndarray, "n 3"]:
        """Points [n, 3] (RAS mm) taken where the image goes: from the moving to the fixed space.

        Raises:
            InputError: no points, or what are not finite numbers [n, 3].
        """
        return map_points(self.inverse_chain, points_of(points).points)

    def save(self, path: Path | str) -> Path:
        """Write the map for ANTs and SimpleITK.

        Args:
            path: the file: .nii or .nii.gz for a displacement field, .mat for a linear map.

        Returns:
            The path of the file.

        Raises:
            InputError: another suffix, .mat for a map that is not linear, or a place where no file
                can be written.
        """
        linear = [m for m in self.chain if not isinstance(m, Field)] if len(self.chain) == 1 else []
        if not str(path).endswith(NIFTI) and not (linear and str(path).endswith(".mat")):
            raise InputError(f"{path}: expected .nii or .nii.gz, or .mat for a linear transform.")
        with claimed_file(path), completed(path) as name:
            if str(path).endswith(NIFTI):
                write_field(name, compose_chain(self.chain, self.grid))
            else:
                write_affine(name, linear[0])
        return Path(path)


class CurvePoint(NamedTuple):
    """The registration at one λ of a sweep."""

    lam: float
    similarity: float
    folds_percent: float
    sdlogj: float


@dataclass(frozen=True)
class Result:
    """A registered pair; images lie on the grid of the fixed one.

    Attributes:
        moved: the moving image, moved; a nibabel image.
        transform: the map between both spaces.
        metrics: numbers by name, as in provenance.json: similarity, folds, millimetres, Dice.
        warnings: what the user should know, a sentence each.
        verdict: `state` ("green", "amber" or "red": nothing stands out, look at the report, most
            likely wrong) and `reasons`, the names of the numbers behind it.
        jacobian: determinant of the deformable part in physical space; a nibabel image.
        moved_labels: the moved label map, None if the moving image has none.
        curve: all λ of a sweep; empty without one.
    """

    moved: Any
    transform: Transform
    metrics: dict[str, float]
    warnings: tuple[str, ...]
    verdict: Verdict
    jacobian: Any
    moved_labels: Any
    curve: tuple[CurvePoint, ...]
    _finished: Finished = field(repr=False)
    _every_lam: bool = field(repr=False)

    @speaks_of_arguments
    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write what the command writes: images, warps, report.html, provenance.json.

        The files are the same, byte for byte, as those of `jaxreg register` (of `jaxreg sweep` for
        the result of a sweep) on the same images, but for timings.json. An image that no file holds
        is named after its argument.

        Args:
            folder: the folder of the results; it appears when they are complete.
            overwrite: whether to replace the run that is there.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds other files, or cannot be written.

        Examples:
            >>> import jaxreg
            >>> images = "fixed_T1w.nii.gz", "moving_T2w.nii.gz"
            >>> result = jaxreg.register(*images, optimize_only=True, spacing=8.0, steps=5)
            >>> folder = result.save("run")
            >>> (folder / "report.html").is_file()
            True
        """
        with claimed(folder):
            self._finished.write(Path(folder), overwrite=overwrite, every_lam=self._every_lam)
        return Path(folder)


def result_of(finished: Finished, *, every_lam: bool, arguments_of: Any) -> Result:
    """The result for Python; warnings name the arguments of the function `arguments_of`."""
    found, outputs = finished.registration, finished.outputs
    like, labels = found.fixed.header.geometry, outputs.moved_labels
    grids = found.fixed.header.grid, found.moving.header.grid
    return Result(
        moved=image_like(outputs.moved, like),
        transform=Transform(found.chain, found.inverse_chain, *grids),
        metrics=finished.metrics,
        warnings=tuple(in_arguments(line, arguments_of) for line in found.warnings),
        verdict=finished.verdict,
        jacobian=image_like(outputs.jacobian, like),
        moved_labels=None if labels is None else image_like(smallest_labels(labels), like),
        curve=tuple(
            CurvePoint(d.lam, d.similarity, d.folds_percent, d.sdlogj) for d in found.curve
        ),
        _finished=finished,
        _every_lam=every_lam,
    )
