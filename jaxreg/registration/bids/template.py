"""The template of a data set's normalisation as files that every pair shares, and its labels."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxreg.configuration.bids import BidsSelection
from jaxreg.configuration.normalization import MNI152, NormalizeConfig
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import resample_by
from jaxreg.io.atomic import completed
from jaxreg.io.checksums import bytes_sha256
from jaxreg.io.compression import packed
from jaxreg.io.stored_images import MemoryImage
from jaxreg.registration.normalize.template import label_volumes_ml, template_of

_CEREBRA = "CerebrA"


class Atlas(NamedTuple):
    """A template's labels: `name` is that of `seg-NAME` in BIDS, `names` those of the labels."""

    name: str
    labels: Volume
    names: dict[int, str]

    @property
    def table(self) -> str:
        """The name of the table of labels at the top of the derivatives."""
        return f"seg-{self.name}_dseg.tsv"

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Its rows: numbers and names."""
        return [(str(code), self.names[code]) for code in sorted(self.names)]

    @property
    def sha256(self) -> str:
        """The hash of the labels and where they lie."""
        return bytes_sha256(self.labels.array.tobytes() + self.labels.affine.tobytes())

    def in_subject(self, inverse: Field) -> Int[np.ndarray, "x y z"]:
        """The labels on the grid of a subject, brought there by the inverse warp."""
        return resample_by(self.labels, inverse, order=0, smooth_labels=True)

    def volumes_ml(self, labels: Int[np.ndarray, "x y z"], grid: Grid) -> dict[str, float]:
        """Millilitres of each label by name on a subject's grid; 0 of those that are not there."""
        volumes = label_volumes_ml(labels, grid, self.names)
        return {self.names.get(c, f"Label-{c}"): round(ml, 3) for c, ml in volumes.items()}


class SharedTemplate(NamedTuple):
    """The files of the template that all pairs of a run share; `mask` and `atlas` if it has any.

    `data` is what `image` has to hold, None where it is the user's own file.
    """

    image: Path
    mask: Path | None
    atlas: Atlas | None
    data: bytes | None = None

    def write(self) -> None:
        """Write the image that no file holds, into a folder that exists.

        Raises:
            InputError: it cannot be written.
        """
        if self.data is None or (self.image.is_file() and self.image.read_bytes() == self.data):
            return
        with completed(self.image) as partial:
            partial.write_bytes(self.data)


def shared_template(selection: BidsSelection, folder: Path) -> SharedTemplate | None:
    """The template that is asked for, if one is; of mni152 the brain, to be written to `folder`.

    Raises:
        InputError: mni152 is not installed, or a file is not what it must be.
    """
    if selection.template is None:
        return None
    template = template_of(
        NormalizeConfig(
            template=selection.template,
            template_mask=selection.template_mask,
            template_labels=selection.template_labels,
        )
    )
    atlas = None
    if template.labels is not None:
        name = _CEREBRA if selection.template == MNI152 else selection.fixed_space
        atlas = Atlas(name, template.labels, template.names or {})
    image = template.image_for(selection.moving_suffix)
    if not isinstance(image, MemoryImage):
        mask = template.mask
        return SharedTemplate(image.absolute(), mask if isinstance(mask, Path) else None, atlas)
    contrast = image.name.rpartition("_")[2]
    name = f"tpl-{selection.fixed_space}_desc-brain_{contrast}.nii.gz"
    return SharedTemplate(folder / name, None, atlas, packed(image.data))
