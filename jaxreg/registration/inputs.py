"""One side of a pair as its files give it: image, brain, what to ignore, labels, and remarks."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.foreground import foreground, zero_intensity
from jaxreg.data.scan import read_scan
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io.headers import Header, read_header
from jaxreg.io.images import read_labels, read_mask
from jaxreg.io.stored_images import MemoryImage, Source, StoredImage, open_image
from jaxreg.segmentation.brain import FoundBrain


class Subject(NamedTuple):
    """The fixed or the moving side; arrays are RAS, `header` describes the file's own order.

    `mask` is the brain, or the head where no brain is known (`brain_known` false). `files` are the
    paths read, by role, with their SHA-256. `zero` is the intensity that stands for no signal.
    """

    path: Path | MemoryImage
    header: Header
    image: Volume
    mask: Bool[np.ndarray, "x y z"]
    brain_known: bool
    ignore: Bool[np.ndarray, "x y z"] | None
    labels: Volume | None
    files: dict[str, dict[str, str]]
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]
    zero: float = 0.0
    extracted: bool = False
    """Whether the mask is that of the segmentation."""
    brain: FoundBrain | None = None
    """What segmentation found in the image; None where it was not asked, or found nothing."""


def read_side(
    role: str,
    image: Path | MemoryImage | Subject,
    config: RegisterConfig,
    *,
    in_memory: Mapping[str, MemoryImage] | None = None,
) -> Subject:
    """One side of a pair, with the files that the settings name for it.

    A side that has been read already is returned as it is. `in_memory` has masks and label maps
    that no file holds, by the name of their setting.

    Raises:
        InputError: as `read_subject`.
    """
    if isinstance(image, Subject):
        return image
    mask, ignore, labels = (
        (in_memory or {}).get(f"{role}_{kind}", getattr(config, f"{role}_{kind}"))
        for kind in ("mask", "ignore", "labels")
    )
    return read_subject(role, image, mask=mask, ignore=ignore, labels=labels)


def read_subject(
    role: str,
    image: Path | MemoryImage,
    *,
    mask: Source | None = None,
    ignore: Source | None = None,
    labels: Source | None = None,
) -> Subject:
    """One side of a pair, its files read and checked; `role` is fixed or moving.

    Without a mask, an image of which a quarter or more of the voxels have the value of the
    background, and the rest are at most 2.5 litres, is taken for a brain that was cut out. Any
    other image is a whole head, and there is a warning.

    Raises:
        InputError: a file that cannot be read or used, a label map as image, a mask or labels on
            another grid than the image, an empty mask.
    """
    stored = open_image(image)
    _require_one_volume(stored)
    header, volume = read_scan(stored)
    files = {"image": _file(stored)}
    remarks = list(header.remarks)
    extra: dict[str, Volume] = {}
    for name, path in (("mask", mask), ("ignore", ignore), ("labels", labels)):
        if path is not None:
            beside = open_image(path)
            own = read_header(beside)
            _check_same_grid(path, own, image, header)
            remarks += own.remarks
            read = read_labels if name == "labels" else read_mask
            extra[name] = read(beside, remark=remarks.append)
            files[name] = _file(beside)
    brain, known, remark = _brain(role, volume, extra.get("mask"), mask)
    ignored = extra.get("ignore")
    return Subject(
        path=image,
        header=header,
        image=volume,
        mask=brain,
        brain_known=known,
        ignore=None if ignored is None else ignored.array,
        labels=extra.get("labels"),
        files=files,
        remarks=(*remarks, remark) if known else tuple(remarks),
        warnings=header.warnings if known else (*header.warnings, remark),
        zero=zero_intensity(volume.array),
    )


def _require_one_volume(stored: StoredImage) -> None:
    """Raise InputError where an image is a series, which has to be registered by one volume."""
    shape = tuple(int(n) for n in stored.image.shape)
    if len(shape) == 4 and shape[3] > 1:
        raise InputError(
            f"{stored}: expected a 3-D volume, got shape {shape}; register one volume of the "
            "series or its mean, then move the series with `jaxreg apply`."
        )


def _brain(role: str, image: Volume, mask: Volume | None, path: Source | None):
    """(mask, whether it is a brain's, a remark on where it comes from)."""
    if mask is not None:
        if not mask.array.any():
            raise InputError(f"{path}: expected a mask of the brain, got only zeros.")
        return mask.array, True, f"{role}: brain from {path}"
    shown = foreground(image)
    if shown.is_brain:
        remark = (
            f"{role}: no mask; {shown.background_share:.0%} of the voxels are background and the "
            f"rest are {shown.litres:.2f} litres: taken for an extracted brain"
        )
        return shown.mask, True, remark
    remark = (
        f"{role}: no mask, and {shown.litres:.1f} litres of foreground are more than a brain: the "
        "whole head is registered. Skull and neck influence the result; give a brain mask "
        f"(--{role}-mask) for a better one."
    )
    return shown.mask, False, remark


def _check_same_grid(path: Source, own: Header, image: Source, header: Header) -> None:
    here, there = own.grid, header.grid
    if here.shape != there.shape:
        raise InputError(f"{path}: expected the grid of {image}, {there.shape}, got {here.shape}.")
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in here.shape], indexing="ij"))
    apart = (here.affine - there.affine)[:3] @ np.append(corners.reshape(3, -1), np.ones((1, 8)), 0)
    worst_mm = float(np.linalg.norm(apart, axis=0).max())
    if worst_mm > 0.25 * min(header.spacing_mm):
        raise InputError(
            f"{path}: expected the grid of {image}, got one whose corners lie up to "
            f"{worst_mm:.2f} mm off."
        )


def _file(stored: StoredImage) -> dict[str, str]:
    """What the record says of an input; one in memory counts as the NIfTI file that it would be."""
    return {"path": str(stored), "sha256": stored.sha256 or ""}
