"""Normalisation from Python: `jaxreg.normalize`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxreg.configuration.normalization import MNI152, NormalizeConfig
from jaxreg.errors import in_arguments, speaks_of_arguments
from jaxreg.io.atomic import claimed
from jaxreg.io.images import ImageLike, image_like, smallest_labels, source_of
from jaxreg.io.stored_images import MemoryImage
from jaxreg.registration.normalize.normalize import Normalized, normalize_images
from jaxreg.registration.normalize.template import template_of
from jaxreg.registration.output.checks import Verdict
from jaxreg.registration.result import Transform, result_of


@dataclass(frozen=True)
class NormalizedSubject:
    """A subject in the space of a template, and the template's labels in the subject's space.

    Attributes:
        moved: the images on the grid of the template, in the order given; nibabel images.
        transform: the map of the first image to the template; `transform.inverse` goes back.
        atlas_labels: the template's labels on the grid of the first image, a nibabel image; None
            where the template has none.
        volumes_ml: millilitres of each label in the first image, by name.
        metrics: numbers of the registration by name.
        warnings: what the user should know, a sentence each.
        verdict: `state` ("green", "amber" or "red") and the `reasons`.
    """

    moved: tuple[Any, ...]
    transform: Transform
    atlas_labels: Any
    volumes_ml: dict[str, float]
    metrics: dict[str, float]
    warnings: tuple[str, ...]
    verdict: Verdict
    _normalized: Normalized = field(repr=False)

    @speaks_of_arguments
    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write what `jaxreg normalize` writes.

        Args:
            folder: the folder of the results; it appears when they are complete.
            overwrite: whether to replace the run that is there.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds other files, or cannot be written.
        """
        with claimed(folder):
            finished = self._normalized.finished
            finished.write(Path(folder), overwrite=overwrite, every_lam=False)
        return Path(folder)


@speaks_of_arguments
def normalize(
    images: ImageLike | Sequence[ImageLike],
    *,
    template: ImageLike = MNI152,
    template_mask: ImageLike | None = None,
    template_labels: ImageLike | None = None,
    mask: ImageLike | None = None,
    ignore: ImageLike | None = None,
    segmentation: Path | str | None = None,
    say: Callable[[str], None] | None = None,
) -> NormalizedSubject:
    """Bring the images of one subject to MNI152 or another template.

    The first image is registered to the template. Each further one is registered rigidly to the
    first and goes by the same map, in one interpolation. Each image is a path, a nibabel image, or
    (array [x, y, z], affine to RAS mm [4, 4]); several are given in a list.

    Args:
        images: a whole head or brain, or a list of images of one subject.
        template: "mni152" (`pip install ./packages/jaxreg-mni152`), or the image of a template.
        template_mask: brain mask of another template than mni152.
        template_labels: label map of another template than mni152; of a file the names stand in a
            table of the same name with .tsv: index (or code) and name.
        mask: mask of the brain in the first image.
        ignore: mask of what must not count in the first image, such as a lesion.
        segmentation: folder of segmentation networks; by default the bundled ones.
        say: a function that gets the lines which the command prints, such as `print`.

    Returns:
        The images in the template's space, the map, and the template's labels in the subject's
        space with their volumes; its `save` writes a folder of results.

    Raises:
        jaxreg.errors.InputError: an image that cannot be used, or mni152 is not installed.

    Examples:
        >>> import jaxreg
        >>> subject = jaxreg.normalize(["head_T1w.nii.gz", "head_T2w.nii.gz"])
        >>> len(subject.moved)
        2
        >>> round(subject.volumes_ml["Left-Hippocampus"])
        3
    """
    several = isinstance(images, list) or (
        isinstance(images, tuple) and all(isinstance(image, str | Path) for image in images)
    )
    sources = [
        source_of(image, f"image{n}")
        for n, image in enumerate(images if several else [images], start=1)  # pyright: ignore
    ]
    given = {
        name: source_of(value, name)
        for name, value in {
            "template_mask": template_mask,
            "template_labels": template_labels,
            "mask": mask,
            "ignore": ignore,
        }.items()
        if value is not None
    }
    memory = {name: source for name, source in given.items() if isinstance(source, MemoryImage)}
    files = {name: source for name, source in given.items() if isinstance(source, Path)}
    named = isinstance(template, str | Path)
    config = NormalizeConfig(
        template=str(template) if named else "template",
        segmentation=None if segmentation is None else Path(segmentation),
        **files,
    )
    found = template_of(
        config,
        image=None if named else source_of(template, "template"),
        mask=memory.get("template_mask"),
        labels=memory.get("template_labels"),
    )
    normalized = normalize_images(
        sources,
        config,
        template=found,
        in_memory={name: memory[name] for name in ("mask", "ignore") if name in memory},
        say=(lambda line: None)
        if say is None
        else (lambda line: say(in_arguments(line, normalize))),
    )
    return _subject_of(normalized)


def _subject_of(normalized: Normalized) -> NormalizedSubject:
    """What Python gets of a normalised subject."""
    result = result_of(normalized.finished, every_lam=False, arguments_of=normalize)
    registration, labels = normalized.finished.registration, normalized.labels
    like = registration.moving.header.geometry
    names = normalized.template.name_of
    return NormalizedSubject(
        moved=(result.moved, *(c.moved(registration).image() for c in normalized.companions)),
        transform=result.transform,
        atlas_labels=None if labels is None else image_like(smallest_labels(labels), like),
        volumes_ml={names(code): ml for code, ml in normalized.volumes_ml.items()},
        metrics=result.metrics,
        warnings=result.warnings,
        verdict=result.verdict,
        _normalized=normalized,
    )
