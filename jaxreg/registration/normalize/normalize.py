"""One subject's images brought to a template: the work of `jaxreg normalize`.

The first image is registered to the template. Each further one is registered rigidly to the first
and goes by the same map, interpolated once. The template's labels come back by the inverse.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxreg.configuration.normalization import NormalizeConfig
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.mni152 import CONTRASTS
from jaxreg.errors import InputError
from jaxreg.geometry.transforms import resample_by
from jaxreg.io.files import require_file
from jaxreg.io.images import smallest_labels, write_like
from jaxreg.io.stored_images import MemoryImage
from jaxreg.io.tables import write_table
from jaxreg.registration.clock import Clock
from jaxreg.registration.contrasts import contrast_in_name, look_of
from jaxreg.registration.extraction import with_brain
from jaxreg.registration.finished import Finished, register_images
from jaxreg.registration.inputs import read_subject
from jaxreg.registration.normalize.template import Template, label_volumes_ml, template_of
from jaxreg.registration.output.companions import Companion, check_names, companion_writer
from jaxreg.registration.output.settings import provenance_of_settings
from jaxreg.registration.register import Registration, register_pair
from jaxreg.registration.run import fill_folder

Image = Path | MemoryImage


class Normalized(NamedTuple):
    """A normalised subject: the registration of the first image, and what goes with it.

    `labels` are the template's on the stored grid of the first image, None where it has none.
    """

    finished: Finished
    template: Template
    companions: tuple[Companion, ...]
    labels: Int[np.ndarray, "x y z"] | None

    @property
    def volumes_ml(self) -> dict[int, float]:
        """Millilitres of each of the template's labels in the first image, by code."""
        if self.labels is None:
            return {}
        grid = self.finished.registration.moving.header.grid
        return label_volumes_ml(self.labels, grid, self.template.names)


def normalize_images(
    images: Sequence[Image],
    config: NormalizeConfig,
    *,
    template: Template,
    in_memory: dict[str, MemoryImage] | None = None,
    say: Callable[[str], None] = print,
    clock: Clock | None = None,
) -> Normalized:
    """Bring images of one subject to a template; writes nothing.

    `in_memory` has a mask and an ignored region that no file holds, by the name of their setting.

    Raises:
        InputError: no image, an image or a setting that cannot be used, no brain in an image, or
            two images of one name.
    """
    _require_one(images)
    first, *others = images
    check_names(first, [Companion(image, None) for image in others])
    clock, given = clock or Clock(), in_memory or {}
    memory = {f"moving_{name}": image for name, image in given.items()}
    if isinstance(template.mask, MemoryImage):
        memory["fixed_mask"] = template.mask
    with clock("find the contrast"):
        fixed = template.image_for(_contrast_of(first, config, given, template))
    finished = register_images(
        fixed,
        first,
        _settings(config, template),
        in_memory=memory,
        say=say,
        clock=clock,
    )
    companions, warnings = [], list(finished.registration.warnings)
    for image in others:
        say(f"{image}: registered rigidly to {first}")
        rigid = _rigid(first, image, config, given.get("mask"), say, clock)
        companions.append(Companion(image, rigid.affine))
        warnings += [f"{image}: {line}" for line in rigid.warnings]
    finished = finished._replace(
        registration=finished.registration._replace(warnings=tuple(warnings)),
        provenance={**finished.provenance, "warnings": warnings},
    )
    with clock("labels"):
        labels = None
        if template.labels is not None:
            inverse = finished.outputs.inverse_warp
            labels = resample_by(template.labels, inverse, order=0, smooth_labels=True)
    normalized = Normalized(finished, template, tuple(companions), labels)
    record = {
        "template": template.source,
        "images": [str(image) for image in images],
        "companions": [companion.record() for companion in companions],
    }
    return normalized._replace(
        finished=finished._replace(
            provenance={**finished.provenance, "normalize": record},
            further=partial(_write_further, normalized),
        )
    )


def normalize_files(
    images: Sequence[Path],
    out: Path,
    config: NormalizeConfig,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    detail: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> Finished:
    """Bring image files of one subject to a template and write the folder of results.

    Raises:
        InputError: no image, wrong files or settings, a folder in use, no space left.
    """
    _require_one(images)
    for path in images:
        require_file(path)
    template = template_of(config)
    own = (config.mask, config.ignore, config.template_mask, config.template_labels)
    stays = tuple(template.images.values())
    inputs = [path for path in (*images, *stays, *own) if isinstance(path, Path)]

    def work() -> Finished:
        return normalize_images(images, config, template=template, say=say, clock=clock).finished

    return fill_folder(
        out,
        inputs,
        work,
        partial(provenance_of_settings, stays[0], images[0], _settings(config, template)),
        overwrite=overwrite,
        say=say,
        detail=detail or say,
    )


def _require_one(images: Sequence[Image]) -> None:
    """Raise InputError where there is no image."""
    if not images:
        raise InputError("expected at least one image of the subject, got none.")


def _contrast_of(
    image: Image, config: NormalizeConfig, given: dict[str, MemoryImage], template: Template
) -> str | None:
    """The contrast of an image by its name, or else as its brain looks, where that matters."""
    contrast = contrast_in_name(image, CONTRASTS)
    if contrast is not None or template.of_one_contrast:
        return contrast
    subject = read_subject("moving", image, mask=given.get("mask", config.mask))
    return look_of(with_brain("moving", subject, _settings(config, template))[0])


def _settings(config: NormalizeConfig, template: Template) -> RegisterConfig:
    """The settings of the first image's registration, but for masks in memory."""
    mask = template.mask
    return RegisterConfig(
        fixed_mask=mask if isinstance(mask, Path) else None,
        moving_mask=config.mask,
        moving_ignore=config.ignore,
        segmentation=config.segmentation,
    )


def _rigid(
    first: Image,
    image: Image,
    config: NormalizeConfig,
    mask: MemoryImage | None,
    say: Callable[[str], None],
    clock: Clock,
) -> Registration:
    """The rigid registration of another image of the subject with the first one."""
    memory = {} if mask is None else {"fixed_mask": mask}
    settings = RegisterConfig(
        transform="rigid", fixed_mask=config.mask, segmentation=config.segmentation
    )
    return register_pair(first, image, settings, clock, in_memory=memory, say=say)


def _write_further(normalized: Normalized, folder: Path) -> None:
    """Write the other images in the template's space, and its labels in the subject's."""
    result, template = normalized.finished.registration, normalized.template
    companion_writer(result, normalized.companions)(folder)
    if normalized.labels is None:
        return
    write_like(
        folder / "atlas_labels.nii.gz",
        smallest_labels(normalized.labels),
        result.moving.header.geometry,
    )
    rows = [(c, template.name_of(c), f"{ml:.3f}") for c, ml in normalized.volumes_ml.items()]
    write_table(folder / "volumes.tsv", ("number", "name", "ml"), rows)
