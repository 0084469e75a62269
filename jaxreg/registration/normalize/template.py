"""The template of a normalisation: MNI152 as it is installed, or the user's own files."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxreg.configuration.normalization import MNI152, NormalizeConfig
from jaxreg.data.mni152 import label_names, require_mni152
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.io.files import require_file
from jaxreg.io.headers import read_header
from jaxreg.io.images import image_like, read, read_labels, reordered, source_of
from jaxreg.io.stored_images import MemoryImage, Source

FIXED = {"T1w": "T2w", "T2w": "T2w"}
"""The contrast of mni152 to which a T1w or T2w image is registered, as measured
(docs/normalize.md). Images of any other contrast go to the T1w."""


class Template(NamedTuple):
    """A template: the images that may stay, its brain mask and its labels.

    `images` has one for each contrast, or one alone, with the contrast None. `names` has the name
    of each label, None where no table gives them. `source` is where the files come from: a package,
    or the user.
    """

    images: dict[str | None, Path | MemoryImage]
    mask: Path | MemoryImage | None
    labels: Volume | None
    names: dict[int, str] | None
    source: str

    @property
    def of_one_contrast(self) -> bool:
        """Whether there is no choice of the image that stays."""
        return None in self.images

    def image_for(self, contrast: str | None) -> Path | MemoryImage:
        """The image to which an image of a contrast is registered; of mni152 the brain alone."""
        if self.of_one_contrast:
            return self.images[None]
        own = FIXED.get(contrast or "", "T1w")
        assert self.mask is not None
        return _brain(f"{MNI152}_{own}", self.images[own], self.mask)

    def name_of(self, code: int) -> str:
        """The name of a label, `Label-<code>` where none is known."""
        return (self.names or {}).get(code, f"Label-{code}")


def template_of(
    config: NormalizeConfig,
    *,
    image: Path | MemoryImage | None = None,
    mask: Path | MemoryImage | None = None,
    labels: Source | None = None,
) -> Template:
    """The template that a configuration asks for; files in memory take the place of its paths.

    Raises:
        InputError: mni152 is not installed, a file is missing or not what it must be.
    """
    if image is None and config.template == MNI152:
        files = require_mni152()
        return Template(
            {**files.images},
            files.mask,
            read_labels(files.labels),
            label_names(files.names),
            f"{MNI152} ({files.source})",
        )
    if image is None:
        image = Path(config.template)
        require_file(image)
    labels = labels or config.template_labels
    table = _table_beside(labels)
    return Template(
        {None: image},
        mask or config.template_mask,
        None if labels is None else _labels(labels),
        None if table is None else label_names(table),
        str(image),
    )


def label_volumes_ml(
    labels: Int[np.ndarray, "x y z"], grid: Grid, names: Mapping[int, str] | None
) -> dict[int, float]:
    """Millilitres of each label on a grid, by code; 0 of those that have a name and are not there.

    0 is no label.
    """
    codes, counts = np.unique(labels[labels != 0], return_counts=True)
    own = {int(c): float(n) * grid.voxel_ml for c, n in zip(codes, counts, strict=True)}
    return {code: own.get(code, 0.0) for code in sorted(set(own) | set(names or ()))}


def _brain(name: str, image: Source, mask: Source) -> Path | MemoryImage:
    """An image with 0 outside a mask, on its own grid."""
    header, head = read_header(image), read(image)
    brain = np.zeros_like(head.array)
    np.copyto(brain, head.array, where=read(mask).array > 0.5)
    array = reordered(Volume(brain, head.affine), header.grid)
    return source_of(image_like(array, header.geometry), name)


def _labels(source: Source) -> Volume:
    labels = read_labels(source)
    if not (labels.array > 0).any():
        raise InputError(f"{source}: expected labels, got only zeros.")
    return labels


def _table_beside(labels: Source | None) -> Path | None:
    """The table of names beside a label map: its path with .tsv in place of .nii.gz."""
    if not isinstance(labels, str | Path):
        return None
    path = Path(labels)
    table = path.with_name(path.name.split(".nii")[0].split(".mg")[0] + ".tsv")
    return table if table.is_file() else None
