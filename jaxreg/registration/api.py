"""Registration from Python: `jaxreg.register` and `sweep`.

Images are paths, nibabel images or (array [x, y, z], affine to RAS mm [4, 4]). Nothing is written
until `save` is called, and then what the command of the same name writes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from jaxreg.configuration.registration import (
    GIVEN_MATRIX,
    OPTIONAL_FILES,
    DirectLoss,
    Extraction,
    RegisterConfig,
    TransformKind,
)
from jaxreg.errors import InputError, in_arguments, speaks_of_arguments
from jaxreg.io.images import ImageLike, source_of
from jaxreg.registration.finished import register_images
from jaxreg.registration.result import Result, result_of
from jaxreg.registration.transform_api import affine_of, is_matrix

Say = Callable[[str], None]


@speaks_of_arguments
def register(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    fixed_ignore: ImageLike | None = None,
    moving_ignore: ImageLike | None = None,
    fixed_labels: ImageLike | None = None,
    moving_labels: ImageLike | None = None,
    domains: str | None = None,
    extract: Extraction = "auto",
    transform: TransformKind = "deformable",
    same_subject: bool = False,
    halfway: bool = False,
    also: Sequence[ImageLike] = (),
    model: Path | str | None = None,
    lam: float | Literal["auto"] | None = None,
    init: Path | str | ArrayLike | None = None,
    outputs: str | None = None,
    warp_spacing: float | None = None,
    segmentation: Path | str | None = None,
    label_weight: float | None = None,
    refine: int | None = None,
    passes: int | None = None,
    optimize_only: bool = False,
    loss: DirectLoss | None = None,
    steps: int | None = None,
    spacing: float | None = None,
    say: Say | None = None,
) -> Result:
    """Register the moving image to the fixed image.

    Without settings the bundled network registers a T1w and a T2w image of two subjects. Each image
    is a path, a nibabel image, or (array [x, y, z], affine to RAS mm [4, 4]).

    Args:
        fixed: the image that stays; the results lie on its grid.
        moving: the image that is moved.
        fixed_mask: mask of the fixed brain, on the grid of the fixed image.
        moving_mask: mask of the moving brain, on the grid of the moving image.
        fixed_ignore: mask of what must not count in the fixed image, such as a lesion.
        moving_ignore: mask of what must not count in the moving image.
        fixed_labels: label map of the fixed image; Dice is computed with the moving one.
        moving_labels: label map of the moving image; it is moved as well.
        domains: contrasts of fixed and moving, such as "T1w,T2w"; by default as the file names say,
            else as the intensities look, else in the order of the model.
        extract: in which images segmentation finds the brain mask: "auto" (whole heads without a
            mask) or "always" (all without a given mask); "never" segments nothing.
        transform: "deformable", or "affine" or "rigid".
        same_subject: whether both images show one subject: a rigid map within the brains.
        halfway: whether `save` writes both images of one subject halfway between them, too.
        also: more images in the space of the moving one, which `save` writes moved by the same map.
        model: a training workdir or a released network; by default the bundled network.
        lam: smoothness λ in [0, 1], or "auto": chosen for this pair by a sweep. By default that of
            the model.
        init: linear start: "auto", "none", "com", "rigid", "affine", an ITK affine file, or a
            matrix [4, 4] that takes points from the fixed to the moving space (RAS mm), as the file
            does. By default "auto": by the segmentation of both images, or else the best of none,
            rigid and affine by local correlation.
        outputs: files that `save` writes, such as "warp,report"; "all,view3d" adds the view in
            three dimensions. By default all but that.
        warp_spacing: voxel size of the warps that `save` writes, in mm; by default that of the
            images.
        segmentation: folder of segmentation networks; by default the bundled ones.
        label_weight: weight of the overlap of both segmentations in the optimisation; by default
            8 after a network and 4 with `optimize_only`, and 0 leaves it out.
        refine: steps of optimisation from the network's answer; by default as the model says
            (bundled: 16); 20 where no segmentation takes part.
        passes: how often the network sees the pair; by default as the model says.
        optimize_only: whether to find the velocity by direct optimisation, without a network.
        loss: the loss of `optimize_only`; by default lncc.
        steps: the number of steps of `optimize_only`; by default 80.
        spacing: the voxel size of the grid of `optimize_only`, in mm; by default 2.
        say: a function that gets the lines which the command prints, such as `print`.

    Returns:
        The moved image, the transform and the numbers; its `save` writes a folder of results.

    Raises:
        jaxreg.errors.InputError: an image or a setting that cannot be used.

    Examples:
        >>> import jaxreg
        >>> result = jaxreg.register("fixed_T1w.nii.gz", "moving_T2w.nii.gz")
        >>> result.metrics["similarity"] > result.metrics["similarity_affine"]
        True
        >>> back = result.transform.inverse.apply("fixed_T1w.nii.gz")
    """
    settings = {name: value for name, value in locals().items() if name in _SETTINGS}
    return _register(fixed, moving, settings, say, every_lam=False)


@speaks_of_arguments
def sweep(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    fixed_ignore: ImageLike | None = None,
    moving_ignore: ImageLike | None = None,
    fixed_labels: ImageLike | None = None,
    moving_labels: ImageLike | None = None,
    domains: str | None = None,
    extract: Extraction = "auto",
    model: Path | str | None = None,
    init: Path | str | ArrayLike | None = None,
    outputs: str | None = None,
    warp_spacing: float | None = None,
    segmentation: Path | str | None = None,
    label_weight: float | None = None,
    refine: int | None = None,
    passes: int | None = None,
    optimize_only: bool = False,
    loss: DirectLoss | None = None,
    steps: int | None = None,
    spacing: float | None = None,
    say: Say | None = None,
) -> Result:
    """Register the moving image to the fixed image at every λ from 0 to 1 by 0.1.

    Args:
        fixed: the image that stays; the results lie on its grid.
        moving: the image that is moved.
        fixed_mask: mask of the fixed brain, on the grid of the fixed image.
        moving_mask: mask of the moving brain, on the grid of the moving image.
        fixed_ignore: mask of what must not count in the fixed image, such as a lesion.
        moving_ignore: mask of what must not count in the moving image.
        fixed_labels: label map of the fixed image; Dice is computed with the moving one.
        moving_labels: label map of the moving image; it is moved as well.
        domains: contrasts of fixed and moving, such as "T1w,T2w"; by default as the file names say,
            else as the intensities look, else in the order of the model.
        extract: in which images segmentation finds the brain mask: "auto" (whole heads without a
            mask) or "always" (all without a given mask); "never" segments nothing.
        model: a training workdir or a released network; by default the bundled network.
        init: linear start: "auto", "none", "com", "rigid", "affine", an ITK affine file, or a
            matrix [4, 4] that takes points from the fixed to the moving space (RAS mm), as the file
            does. By default "auto": by the segmentation of both images, or else the best of none,
            rigid and affine by local correlation.
        outputs: files that `save` writes, such as "warp,report"; "all,view3d" adds the view in
            three dimensions. By default all but that.
        warp_spacing: voxel size of the warps that `save` writes, in mm; by default that of the
            images.
        segmentation: folder of segmentation networks; by default the bundled ones.
        label_weight: weight of the overlap of both segmentations in the optimisation; by default
            8 after a network and 4 with `optimize_only`, and 0 leaves it out.
        refine: steps of optimisation from the network's answer; by default as the model says
            (bundled: 16); 20 where no segmentation takes part.
        passes: how often the network sees the pair; by default as the model says.
        optimize_only: whether to find the velocity by direct optimisation, without a network.
        loss: the loss of `optimize_only`; by default lncc.
        steps: the number of steps of `optimize_only`; by default 80.
        spacing: the voxel size of the grid of `optimize_only`, in mm; by default 2.
        say: a function that gets the lines which the command prints, such as `print`.

    Returns:
        The result at the λ that `lam="auto"` chooses; `curve` has every λ, and `save` writes
        curve.tsv and the moved image of each of them too.

    Raises:
        jaxreg.errors.InputError: an image or a setting that cannot be used.

    Examples:
        >>> import jaxreg
        >>> images = "fixed_T1w.nii.gz", "moving_T2w.nii.gz"
        >>> result = jaxreg.sweep(*images, optimize_only=True, spacing=8.0, steps=5)
        >>> len(result.curve)
        11
    """
    settings = {name: value for name, value in locals().items() if name in _SETTINGS}
    return _register(fixed, moving, {**settings, "lam": "auto"}, say, every_lam=True)


_SETTINGS = tuple(RegisterConfig.__dataclass_fields__)


def _register(
    fixed: Any, moving: Any, settings: dict[str, Any], say: Say | None, *, every_lam: bool
) -> Result:
    """The registration of a pair with settings as `register` takes them."""
    given = {
        name: source_of(settings[name], name)
        for name in OPTIONAL_FILES
        if settings[name] is not None
    }
    in_memory = {name: source for name, source in given.items() if not isinstance(source, Path)}
    files = {name: None if name in in_memory else given.get(name) for name in OPTIONAL_FILES}
    init, start = settings["init"], None
    if init is not None and not isinstance(init, str | Path):
        init, start = GIVEN_MATRIX, _start_of(init)
    folders = {name: settings[name] for name in ("model", "segmentation")}
    also = [source_of(image, f"also{n}") for n, image in enumerate(settings.get("also", ()), 1)]
    config = RegisterConfig(
        **{
            **settings,
            **files,
            **{name: None if path is None else Path(path) for name, path in folders.items()},
            "init": None if init is None else str(init),
            "also": tuple(source for source in also if isinstance(source, Path)),
        }
    )
    finished = register_images(
        source_of(fixed, "fixed"),
        source_of(moving, "moving"),
        config,
        in_memory=in_memory,
        start=start,
        also=also,
        say=(lambda line: None)
        if say is None
        else (lambda line: say(in_arguments(line, register))),
    )
    return result_of(finished, every_lam=every_lam, arguments_of=register)


def _start_of(matrix: ArrayLike) -> np.ndarray:
    """A linear start that is given as a matrix."""
    if not is_matrix(matrix):
        raise InputError("init: expected a name, a file or numbers [4, 4], got neither.")
    return affine_of(matrix, "init")
