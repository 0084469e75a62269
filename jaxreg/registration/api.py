"""Registration from Python: `jaxreg.register`, `sweep`, `apply`, `compare`, `convert`, `prepare`.

Images are paths, nibabel images or (array [x, y, z], affine to RAS mm [4, 4]). Nothing is written
until `save` is called, and then what the command of the same name writes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from jaxreg.configuration.preparation import Layout, PrepareConfig
from jaxreg.configuration.registration import (
    GIVEN_MATRIX,
    OPTIONAL_FILES,
    DirectLoss,
    Extraction,
    RegisterConfig,
    TransformKind,
)
from jaxreg.data.prepare.brains import no_finder
from jaxreg.data.prepare.prepare import Summary
from jaxreg.data.prepare.prepare import prepare as prepare_cohort
from jaxreg.errors import InputError, in_arguments, speaks_of_arguments
from jaxreg.geometry.transforms import Chain
from jaxreg.io.images import ImageLike, source_of
from jaxreg.io.points import Convention, PointTable, read_points
from jaxreg.registration.apply import Applied, Interpolation, apply_chain, load_chain
from jaxreg.registration.compare_tools.compare import Row, compare_files
from jaxreg.registration.compare_tools.external_tools import ENGINES, WITHOUT_EXTRA
from jaxreg.registration.convert import convert_file
from jaxreg.registration.finished import register_images
from jaxreg.registration.linear.affine import register_affine
from jaxreg.registration.result import Result, Transform, result_of
from jaxreg.segmentation.networks import brain_finder

Say = Callable[[str], None]
TOOLS = tuple(name for name in ENGINES if name not in WITHOUT_EXTRA)


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
            else in the order of the model.
        extract: whose brains are those that segmentation finds: "auto" (whole heads without a
            mask) or "always"; masks that are given stay. "never" segments nothing.
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
        refine: steps of optimisation from the network's answer; by default as the model says.
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
            else in the order of the model.
        extract: whose brains are those that segmentation finds: "auto" (whole heads without a
            mask) or "always"; masks that are given stay. "never" segments nothing.
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
        refine: steps of optimisation from the network's answer; by default as the model says.
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
        table = read_points(points, convention=points_convention) if is_file else _table_of(points)
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
def compare(
    fixed: Path | str,
    moving: Path | str,
    *,
    tools: Sequence[str] = TOOLS,
    settings: RegisterConfig | None = None,
    say: Say | None = None,
) -> list[Row]:
    """Register a pair by jaxreg and by other tools, from the same affine on the same grid.

    Args:
        fixed: the file of the fixed image.
        moving: the file of the moving image.
        tools: some of "ants", "greedy", "elastix", "convexadam" (extra `compare`) and "fireants";
            those that are not installed are skipped.
        settings: those of jaxreg, with label maps for Dice; by default the bundled network's.
        say: a function that gets the lines which the command prints, such as `print`.

    Returns:
        Dice, local correlation, folds, seconds and memory of the affine alone and of each tool.

    Raises:
        jaxreg.errors.InputError: an image, a setting or a tool that cannot be used.

    Examples:
        >>> import jaxreg
        >>> from jaxreg.configuration.registration import RegisterConfig
        >>> settings = RegisterConfig(optimize_only=True, spacing=8.0, steps=3)
        >>> rows = jaxreg.compare(
        ...     "fixed_T1w.nii.gz", "moving_T2w.nii.gz", tools=["elastix"], settings=settings
        ... )
        >>> [row.name for row in rows][:2]
        ['affine alone', 'jaxreg']
    """
    return compare_files(
        Path(fixed),
        Path(moving),
        tuple(tools),
        settings or RegisterConfig(),
        say=say or (lambda line: None),
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


@speaks_of_arguments
def prepare(
    scans: Path | str,
    out: Path | str,
    *,
    layout: Layout,
    labels: Path | str | None = None,
    spacing: float = 2.0,
    split: str | None = None,
    seed: int = 0,
    template: Path | str | None = None,
    jobs: int | None = None,
    entities: str | None = None,
    extract: Extraction = "auto",
    segmentation: Path | str | None = None,
) -> Summary:
    """Make a cohort for training from scans, or continue one.

    The scans are reoriented, masked, aligned to a common space, resampled, normalised and labelled.

    Args:
        scans: the folder of the data set, or the table of a "table".
        out: the folder of the cohort: a new one, or one to be continued with the same settings.
        layout: how the scans are stored: "bids", "hcp", "ixi" or "table"; docs/prepare.md describes
            each.
        labels: what the numbers of label maps mean: "freesurfer", "own", or a TSV (index, name); by
            default as the layout says. With "auto" they are FreeSurfer's, and subjects without a
            label map get one from jaxreg's segmentation.
        spacing: the isotropic voxel size of the cohort, in mm.
        split: "TRAIN/VAL/TEST" in per cent, shares or subjects; by default "80/10/10".
        seed: the seed of the random split.
        template: the image of the common space; by default the mean of up to 20 subjects.
        jobs: subjects worked on at a time; by default the number of cores.
        entities: which of several BIDS images of one subject are taken, such as
            "acq=highres,run=1"; by default the rules of docs/prepare.md decide.
        extract: brains that jaxreg finds by segmentation: "auto" (of whole heads without a mask),
            "never" or "always" (of all without a mask).
        segmentation: folder of segmentation networks of one's own; by default the bundled ones.

    Returns:
        Who is in which split, who failed or was left out and why; as text, what the command prints.

    Raises:
        jaxreg.errors.InputError: scans or settings that cannot be used, or too many failures.

    Examples:
        >>> import jaxreg
        >>> summary = jaxreg.prepare("scans.tsv", "cohort", layout="table", spacing=8.0)
        >>> summary.subjects["train"], summary.failed
        (1, {})
    """
    config = PrepareConfig(
        layout=layout,
        source=Path(scans),
        out=Path(out),
        labels=None if labels is None else str(labels),
        spacing=spacing,
        split=split,
        seed=seed,
        template=None if template is None else Path(template),
        jobs=jobs,
        entities=entities,
        extract=extract,
        segmentation=None if segmentation is None else Path(segmentation),
    )
    find = brain_finder(config.segmentation) if config.segments else no_finder
    return prepare_cohort(config, register_affine, find=find)


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
    if not _is_matrix(matrix):
        raise InputError("init: expected a name, a file or numbers [4, 4], got neither.")
    found = np.asarray(matrix, np.float64)
    affine = np.isfinite(found).all() and np.array_equal(found[3], [0, 0, 0, 1])
    if not affine or abs(np.linalg.det(found[:3, :3])) < 1e-6:
        raise InputError(
            "init: expected an invertible affine [4, 4] in mm whose last row is 0, 0, 0, 1, got "
            f"{found.tolist()}."
        )
    return found


def _chain_of(transforms: Any) -> Chain:
    """The chain of one transform or several, each a file, a `Transform` or a matrix."""
    if isinstance(transforms, Transform):
        return transforms.chain
    if isinstance(transforms, str | Path):
        return load_chain([transforms])
    if isinstance(transforms, list | tuple) and not _is_matrix(transforms):
        parts = [element for part in transforms for element in _chain_of(part)]
        return parts or load_chain([])  # which says what is wrong with none
    if _is_matrix(transforms):
        return [np.asarray(transforms, np.float64)]
    raise InputError(
        "transforms: expected files, transforms of results or matrices [4, 4], got "
        f"{type(transforms).__name__}."
    )


def _is_matrix(value: Any) -> bool:
    if isinstance(value, list | tuple) and any(isinstance(v, str | Path) for v in value):
        return False
    try:
        return np.asarray(value, np.float64).shape == (4, 4)
    except (TypeError, ValueError):
        return False


def _table_of(points: Any) -> PointTable:
    """Points as the table that a CSV file would hold."""
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"points: expected numbers [n, 3], got {error}.") from error
    if array.ndim != 2 or array.shape[1] != 3 or not len(array) or not np.isfinite(array).all():
        raise InputError(f"points: expected finite numbers [n, 3], got shape {array.shape}.")
    return PointTable(array, ["x", "y", "z"], [[""] * 3 for _ in array])
