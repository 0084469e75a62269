"""More images of the moving subject, brought along by the map of a registration.

Each is resampled once, by the map of the pair and the rigid map from the moving image to it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.errors import InputError
from jaxreg.geometry.transforms import Chain, map_points
from jaxreg.io.checksums import bytes_sha256, file_sha256
from jaxreg.io.images import image_like
from jaxreg.io.itk_transforms import write_affine
from jaxreg.io.stored_images import MemoryImage
from jaxreg.registration.moved import Moved, Notes, check_image, check_overlap, moved
from jaxreg.registration.register import Registration

_ONTO = "the grid of the fixed image"


class Companion(NamedTuple):
    """An image that goes where the moving image goes.

    `rigid` takes points of the moving image's space to its own (RAS mm); None where its header
    says where it lies.
    """

    image: Path | MemoryImage
    rigid: Float[np.ndarray, "4 4"] | None

    @property
    def name(self) -> str:
        """The name of its files: that of the image without its suffix."""
        return self.image.name.split(".")[0]

    def moved(self, result: Registration) -> Moved:
        """The image on the grid of the fixed image.

        Raises:
            InputError: an image that cannot be used, or that the map never meets.
        """
        geometry = result.fixed.header.geometry
        return moved(
            self.image,
            partial(map_points, self._chain(result)),
            result.fixed.header.grid,
            lambda array: image_like(array, geometry),
            labels=False,
            notes=Notes(),
            onto=_ONTO,
            order=1,
        )

    def check(self, notes: Notes) -> None:
        """Note what is odd in an image, and refuse one that cannot be used, before there is a map.

        Raises:
            InputError: what `moved` refuses, whatever the map.
        """
        check_image(self.image, notes, advice="jaxreg apply --labels")

    def check_overlap(self, result: Registration) -> None:
        """Refuse an image that the map never meets.

        Raises:
            InputError: no voxel of the fixed image's grid lies in it.
        """
        grid = result.fixed.header.grid
        check_overlap(self.image, partial(map_points, self._chain(result)), grid, onto=_ONTO)

    def _chain(self, result: Registration) -> Chain:
        """The map from the space of the fixed image to that of this one."""
        return [*result.chain, *([] if self.rigid is None else [self.rigid])]

    def record(self) -> dict[str, Any]:
        """What provenance.json says of it."""
        image = self.image
        in_memory = isinstance(image, MemoryImage)
        return {
            "path": str(image),
            "sha256": bytes_sha256(image.data) if in_memory else file_sha256(image),
            "rigid": None if self.rigid is None else self.rigid.tolist(),
        }


def check_names(moving: Path | MemoryImage, companions: Sequence[Companion]) -> None:
    """Raise InputError where two images would be written to one file."""
    names = ["labels", moving.name.split(".")[0], *(companion.name for companion in companions)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"expected images of different names, got {twice} twice.")


def companion_writer(
    result: Registration, companions: Sequence[Companion]
) -> Callable[[Path], None]:
    """A function that writes moved_NAME.nii.gz and rigid_NAME.mat of each into a folder."""

    def write(folder: Path) -> None:
        for companion in companions:
            companion.moved(result).write(folder / f"moved_{companion.name}.nii.gz")
            if companion.rigid is not None:
                write_affine(folder / f"rigid_{companion.name}.mat", companion.rigid)

    return write
