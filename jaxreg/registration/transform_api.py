"""What is done with a map from Python: `jaxreg.apply` and `convert`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxreg.errors import InputError, speaks_of_arguments
from jaxreg.geometry.transforms import Chain
from jaxreg.io.images import ImageLike, source_of
from jaxreg.io.points import Convention, points_of, read_points
from jaxreg.registration.apply import Applied, Interpolation, apply_chain, load_chain
from jaxreg.registration.convert import convert_file
from jaxreg.registration.result import Transform


@speaks_of_arguments
def apply(
    transforms: Transform | ArrayLike | Path | str | Sequence[Any],
    *,
    image: ImageLike | None = None,
    labels: ImageLike | None = None,
    points: ArrayLike | Path | str | None = None,
    reference: ImageLike | None = None,
    inverse: bool = False,
    interpolation: Interpolation | None = None,
    fill: float = 0.0,
    points_convention: Convention = "ras",
) -> Applied:
    """Move one image, one label map or points by one or more transforms, in one resampling.

    Args:
        transforms: one transform or a list of them, in the order of antsApplyTransforms: the last
            one is applied first. Each is a file (a warp or an affine), the `transform` of a result,
            or a matrix [4, 4] that takes points from the fixed to the moving space (RAS mm).
        image: the image to move; of a 4-D image every volume is moved alike, and the result is
            held in memory as a whole.
        labels: the label map to move.
        points: points [n, 3] in RAS mm, or a CSV file with the header x,y,z; they go where the
            image goes, from the moving to the fixed space.
        reference: the image whose grid the result lies on; for `image` and `labels`.
        inverse: whether to go the other way, from the fixed to the moving space. Affines are
            inverted exactly, fields numerically.
        interpolation: of an image "nearest", "linear" (the default) or "bspline" (cubic); of labels
            "nearest" (the default) or "label": of the labels around a point the one with the
            largest sum of linear weights.
        fill: the value outside the field of view of what is moved.
        points_convention: "lps" where x and y of a points file have the signs of ANTs.

    Returns:
        The moved image or points, with what a numerical inverse left; its `save` writes a file.

    Raises:
        jaxreg.errors.InputError: a transform, an image or points that cannot be used.

    Examples:
        >>> import jaxreg
        >>> applied = jaxreg.apply(
        ...     "run/warp.nii.gz", image="moving_T2w.nii.gz", reference="fixed_T1w.nii.gz"
        ... )
        >>> applied.save("moved.nii.gz").name
        'moved.nii.gz'
        >>> jaxreg.apply("run/affine.mat", points=[[12.0, -30.5, 8.0]]).points.shape
        (1, 3)
    """
    table = None
    if points is not None:
        is_file = isinstance(points, str | Path)
        table = read_points(points, convention=points_convention) if is_file else points_of(points)
    sources = {"image": image, "labels": labels, "reference": reference}
    given = {n: None if value is None else source_of(value, n) for n, value in sources.items()}
    return apply_chain(
        _chain_of(transforms),
        image=given["image"],
        labels=given["labels"],
        reference=given["reference"],
        points=table,
        inverse=inverse,
        interpolation=interpolation,
        fill=fill,
    )


@speaks_of_arguments
def convert(
    warp: Path | str,
    out: Path | str,
    *,
    to: Literal["itk", "fsl", "freesurfer"],
    moving: Path | str | None = None,
) -> Path:
    """Write a warp in the form that FSL or FreeSurfer reads.

    Args:
        warp: an ITK displacement field, such as the warp.nii.gz of a run.
        out: the result: .nii or .nii.gz for "itk" and "fsl", .mgz or .mgh for "freesurfer".
        to: the format: "itk" (ANTs, SimpleITK), "fsl" (applywarp), "freesurfer" (mri_convert -at).
        moving: the moving image, whose geometry FSL and FreeSurfer warps contain; by default as
            provenance.json beside the warp says.

    Returns:
        The path of the result.

    Raises:
        jaxreg.errors.InputError: a file that cannot be read, or a geometry that is not known.

    Examples:
        >>> import jaxreg
        >>> jaxreg.convert("run/warp.nii.gz", "warp_fsl.nii.gz", to="fsl").name
        'warp_fsl.nii.gz'
    """
    convert_file(warp, to, out, moving=moving)
    return Path(out)


def _chain_of(transforms: Any) -> Chain:
    """The chain of one transform or several, each a file, a `Transform` or a matrix."""
    if isinstance(transforms, Transform):
        return transforms.chain
    if isinstance(transforms, str | Path):
        return load_chain([transforms])
    if isinstance(transforms, list | tuple) and not is_matrix(transforms):
        parts = [element for part in transforms for element in _chain_of(part)]
        return parts or load_chain([])  # which says what is wrong with none
    if is_matrix(transforms):
        return [affine_of(transforms, "transforms")]
    raise InputError(
        "transforms: expected files, transforms of results or matrices [4, 4], got "
        f"{type(transforms).__name__}."
    )


def is_matrix(value: Any) -> bool:
    """Whether a value is numbers [4, 4]."""
    if isinstance(value, list | tuple) and any(isinstance(v, str | Path) for v in value):
        return False
    try:
        return np.asarray(value, np.float64).shape == (4, 4)
    except (TypeError, ValueError):
        return False


def affine_of(matrix: Any, name: str) -> Float[np.ndarray, "4 4"]:
    """The affine that numbers [4, 4] are; `name` is that of the argument.

    Raises:
        InputError: it is none, or cannot be inverted.
    """
    found = np.asarray(matrix, np.float64)
    affine = np.isfinite(found).all() and np.array_equal(found[3], [0, 0, 0, 1])
    if not affine or abs(np.linalg.det(found[:3, :3])) < 1e-6:
        raise InputError(
            f"{name}: expected an invertible affine [4, 4] in mm whose last row is 0, 0, 0, 1, got "
            f"{found.tolist()}."
        )
    return found
