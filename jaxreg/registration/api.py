"""`jaxreg.register`: a pair registered from Python, without files in between for the user."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxreg.configuration.registration import OPTIONAL_FILES, RegisterConfig
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import compose, map_points, resample
from jaxreg.io.atomic import completed
from jaxreg.io.displacement_fields import write_field
from jaxreg.io.headers import read_header
from jaxreg.io.images import (
    NIFTI,
    image_like,
    image_of,
    read_image,
    read_labels,
    write,
    write_image,
)
from jaxreg.io.itk_transforms import write_affine
from jaxreg.registration.apply import smallest
from jaxreg.registration.output.files import make_outputs
from jaxreg.registration.output.metrics import metrics_of
from jaxreg.registration.register import Clock, register_pair

Image = Any
"""A path (str or Path), a nibabel image, or (array [x, y, z], affine to RAS mm [4, 4])."""


class Transform(NamedTuple):
    """A map between two images' spaces; images go from `source_grid`'s to `grid`'s.

    `chain` pulls back, from points of `grid`'s space to the other; `inverse_chain` is its inverse.
    """

    chain: list
    inverse_chain: list
    grid: Grid
    source_grid: Grid

    @property
    def inverse(self) -> "Transform":
        """The map the other way."""
        return Transform(self.inverse_chain, self.chain, self.source_grid, self.grid)

    def apply(self, image: Image, *, labels: bool = False, reference: Image = None) -> Any:
        """The image moved, as a nibabel image; nearest neighbour for `labels`, else linear.

        It lies on the grid of `reference`, by default on the fixed image's (of an inverse, on the
        moving image's).
        """
        with tempfile.TemporaryDirectory() as folder:
            path = as_file(image, Path(folder) / "image.nii")
            volume = read_labels(path) if labels else read_image(path)
            grid = self.grid
            if reference is not None:
                grid = read_header(as_file(reference, Path(folder) / "reference.nii")).grid
        order = 0 if labels else 1
        array = resample(volume, partial(map_points, self.chain), grid, order=order)
        return image_of(Volume(smallest(array) if labels else array, grid.affine))

    def apply_points(self, points: ArrayLike) -> Float[np.ndarray, "n 3"]:
        """Points [n, 3] (RAS mm) taken where the image goes: from the moving to the fixed space."""
        return map_points(self.inverse_chain, np.asarray(points, np.float64))

    def save(self, path: Path | str) -> None:
        """Write the map for ANTs and SimpleITK: .nii or .nii.gz (a field), .mat if it is linear.

        Raises:
            InputError: another suffix, or .mat for a map that is not linear.
        """
        first = self.chain[0]
        if str(path).endswith(NIFTI):
            field = compose(partial(map_points, self.chain), self.grid)
            with completed(path) as name:
                write_field(name, field)
        elif str(path).endswith(".mat") and len(self.chain) == 1 and not isinstance(first, Field):
            with completed(path) as name:
                write_affine(name, first)
        else:
            raise InputError(f"{path}: expected .nii or .nii.gz, or .mat for a linear transform.")


class Result(NamedTuple):
    """A registered pair, images on the fixed grid as nibabel images.

    `moved_labels` is there if the moving image has labels; `jacobian` is the determinant of the
    deformable part in physical space; `metrics` are numbers by name, as in provenance.json.
    """

    moved: Any
    transform: Transform
    metrics: dict[str, float]
    warnings: tuple[str, ...]
    jacobian: Any
    moved_labels: Any


def register(fixed: Image, moving: Image, **settings: Any) -> Result:
    """The moving image registered to the fixed one.

    Images, masks and labels are paths, nibabel images or (array, affine). `settings` are the flags
    of `jaxreg register` with underscores: lam, model, optimize_only, init, transform, fixed_mask
    and so on, and `say`, a function that gets the lines which the command prints (default: none).

    Raises:
        jaxreg.errors.InputError: an image or a setting that cannot be used.
    """
    say: Callable[[str], None] = settings.pop("say", lambda line: None)
    unknown = sorted(set(settings) - set(RegisterConfig.__dataclass_fields__))
    if unknown:
        raise InputError(f"{unknown[0]}: no such setting of a registration.")
    with tempfile.TemporaryDirectory() as folder:
        for name in OPTIONAL_FILES:
            if settings.get(name) is not None:
                settings[name] = as_file(settings[name], Path(folder) / f"{name}.nii")
        if settings.get("model") is not None:
            settings["model"] = Path(settings["model"])
        config = RegisterConfig(**settings)
        fixed, moving = (
            as_file(image, Path(folder) / f"{role}.nii")
            for role, image in (("fixed", fixed), ("moving", moving))
        )
        result = register_pair(fixed, moving, config, Clock(), say=say)
        outputs = make_outputs(result)
        labels = outputs.moved_labels
        return Result(
            moved=image_like(outputs.moved, fixed),
            transform=Transform(
                result.chain,
                result.inverse_chain,
                result.fixed.header.grid,
                result.moving.header.grid,
            ),
            metrics=metrics_of(result, outputs),
            warnings=result.warnings,
            jacobian=image_like(outputs.jacobian, fixed),
            moved_labels=None if labels is None else image_like(smallest(labels), fixed),
        )


def as_file(image: Image, path: Path) -> Path:
    """The file of an image: its own, or `path`, which is written.

    Raises:
        InputError: neither a path, a nibabel image nor (array, affine).
    """
    if isinstance(image, str | Path):
        return Path(image)
    if not isinstance(image, tuple | list):
        write_image(path, image)
        return path
    try:
        array, affine = (np.asarray(part) for part in image)
        if affine.shape != (4, 4):
            raise ValueError(f"an affine of shape {affine.shape}")
        kinds = {"b": np.uint8, "i": np.int32, "u": np.int32}
        array = array.astype(kinds.get(array.dtype.kind, np.float32))
        write(path, Volume(array, affine.astype(np.float64)))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path.stem}: expected (array, affine), got {error}.") from error
    return path
