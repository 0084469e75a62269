"""One image segmented, and the complete folder of its results.

JAX is imported when an image has been read, so that one that is refused is refused soon.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from jaxreg._version import __version__
from jaxreg.data.prepare.freesurfer_labels import structure_name
from jaxreg.data.scan import read_scan
from jaxreg.errors import InputError, speaks_of_arguments
from jaxreg.geometry.grid import Volume
from jaxreg.io.atomic import claimed, completed_folder, require_free_folder
from jaxreg.io.commit import own_commit
from jaxreg.io.headers import Header
from jaxreg.io.images import reordered, write_like
from jaxreg.io.stored_images import MemoryImage, open_image
from jaxreg.io.tables import write_table
from jaxreg.runtime import in_threads

if TYPE_CHECKING:
    from jaxreg.models.segmentation_model import SegmentationModel

BRAIN, RECORD, VOLUMES = "brain.nii.gz", "segmentation.json", "volumes.tsv"
NAMES = ("dseg.nii.gz", "mask.nii.gz", BRAIN, VOLUMES, "report.html", RECORD)
"""What a segmentation may write."""


class SegmentedImage(NamedTuple):
    """The structures and the brain of an image, on its own grid and in its own order of axes.

    Attributes:
        path: the image.
        header: its geometry.
        image: the image in RAS order.
        labels: FreeSurfer's number of the structure at each voxel, 0 outside the brain.
        mask: the brain.
        volumes_ml: millilitres of each structure, by FreeSurfer's number.
        brain_ml: millilitres of the brain mask.
        fit_mm: how far the structures lie from those of the mean brain after an affine fit, root
            mean square, in millimetres.
        agreement: mean Dice of the structures as the network sees them directly and in a mirror,
            in [0, 1].
        doubt: why the result should not be used unseen; None where nothing speaks against it.
        model: the networks that segmented it.
        sha256: the hash of the image's file; None where no file holds it.
    """

    path: Path | MemoryImage
    header: Header
    image: Volume
    labels: UInt8[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    volumes_ml: dict[int, float]
    brain_ml: float
    fit_mm: float
    agreement: float
    doubt: str | None
    model: SegmentationModel
    sha256: str | None

    @speaks_of_arguments
    def save(self, folder: Path | str, *, brain: bool = False, overwrite: bool = False) -> Path:
        """Write the folder that `jaxreg segment` writes; equal inputs give equal bytes.

        Args:
            folder: the folder of the results; it appears when they are complete.
            brain: whether to write brain.nii.gz as well, the image with 0 outside the brain.
            overwrite: whether to replace the run that is there.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds other files, or cannot be written.

        Examples:
            >>> import jaxreg
            >>> folder = jaxreg.segment("head.nii.gz").save("structures")
            >>> (folder / "dseg.nii.gz").is_file()
            True
        """
        out = Path(folder)
        with claimed(out):
            check_folder(out, overwrite=overwrite)
            self._write(out, brain=brain)
        return out

    def _write(self, out: Path, *, brain: bool) -> None:
        from jaxreg.segmentation.report import write_report

        like = self.header.geometry
        with completed_folder(out) as temporary:
            jobs = [
                functools.partial(write_like, temporary / "dseg.nii.gz", self.labels, like),
                functools.partial(
                    write_like, temporary / "mask.nii.gz", self.mask.astype(np.uint8), like
                ),
            ]
            if brain:
                values = reordered(self.image, self.header.grid)
                cut = np.where(self.mask, values, np.zeros((), values.dtype))
                jobs.append(functools.partial(write_like, temporary / BRAIN, cut, like))
            in_threads(*jobs)
            self._write_volumes(temporary / VOLUMES)
            write_report(temporary / "report.html", self)
            text = json.dumps(self.provenance(), indent=1, ensure_ascii=False)
            (temporary / RECORD).write_text(text + "\n", encoding="utf-8")

    def provenance(self) -> dict[str, Any]:
        """What was segmented, by which networks, with which numbers, as JSON values."""
        return {
            "jaxreg": __version__,
            "commit": own_commit(),
            "image": str(self.path),
            "image_sha256": self.sha256,
            "networks_sha256": self.model.sha256,
            "brain_ml": round(self.brain_ml, 1),
            "fit_mm": round(self.fit_mm, 2),
            "agreement": round(self.agreement, 3),
            "doubt": self.doubt,
        }

    def _write_volumes(self, path: Path) -> None:
        rows = [(n, structure_name(n), f"{ml:.3f}") for n, ml in self.volumes_ml.items()]
        rows.append((0, "Brain-Mask", f"{self.brain_ml:.3f}"))
        write_table(path, ("number", "name", "ml"), rows)


def segment_scan(image: Path | MemoryImage, *, networks: Path | None = None) -> SegmentedImage:
    """Segment one image; writes nothing.

    Raises:
        InputError: an image that cannot be read or used, or that shows no brain; an unreadable
            segmentation model.
    """
    stored = open_image(image)
    header, volume = read_scan(stored)
    from jaxreg.segmentation.networks import load_segmentation
    from jaxreg.segmentation.segment import segment_volume

    model, functions = load_segmentation(networks)
    try:
        found = segment_volume(volume, functions)
    except InputError as error:
        raise InputError(f"{image}: {error}") from error
    return SegmentedImage(
        path=image,
        header=header,
        image=volume,
        labels=reordered(Volume(found.labels, volume.affine), header.grid),
        mask=reordered(Volume(found.mask, volume.affine), header.grid),
        volumes_ml=found.brain.volumes_ml,
        brain_ml=float(found.mask.sum()) * volume.voxel_ml,
        fit_mm=found.brain.fit_mm,
        agreement=found.agreement,
        doubt=found.doubt,
        model=model,
        sha256=None if isinstance(image, MemoryImage) else stored.sha256,
    )


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a segmentation may not be written to.

    Raises:
        InputError: the folder holds another run and `overwrite` is not given, or other files.
    """
    require_free_folder(folder, lambda name: name in NAMES, overwrite=overwrite)
