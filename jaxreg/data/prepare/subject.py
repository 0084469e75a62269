"""One subject's scans → a folder of the cohort: images, labels, and a record of their sources.

The first image is aligned affinely to the template, the others rigidly to the first one; each is
resampled once, from its file to the cohort's grid.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from jaxreg.data.foreground import coarse, foreground, zero_intensity
from jaxreg.data.intensities import normalize
from jaxreg.data.prepare.freesurfer_labels import merge_parcels
from jaxreg.data.prepare.source import Files
from jaxreg.data.prepare.template import Aligner, Head, head
from jaxreg.data.scan import read_scan
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Grid, Volume, grid_of
from jaxreg.io import images
from jaxreg.io.atomic import completed
from jaxreg.io.headers import read_header
from jaxreg.io.images import Remark, unheard

IDENTITY = np.eye(4)


def record_file(out: Path, participant: str) -> Path:
    """Where the record of a finished subject lies: files, matrices, labels, what is on the grid."""
    return out / participant / f"{participant}_prepare.json"


def prepare_subject(
    files: Files, template: Head, out: Path, align: Aligner, *, aligned: bool, freesurfer: bool
) -> None:
    """Make a subject's folder in `out`; it appears when it is complete.

    `aligned`: the images lie in one space already. `freesurfer`: cortical parcels are merged.

    Raises:
        InputError: an image, mask or label map that cannot be used, or a failed alignment.
    """
    remarks: list[str] = []
    scans = _align(files, template, align, remarks.append, aligned=aligned)
    partial = out / f".{files.participant}"
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run left
    partial.mkdir()
    try:
        grid = grid_of(template.image)
        record = _write(partial, files, scans, grid, remarks.append, freesurfer=freesurfer)
        record["remarks"] = remarks
        path = partial / record_file(out, files.participant).name
        path.write_text(json.dumps(record, indent=1) + "\n")
        os.rename(partial, out / files.participant)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Scan(NamedTuple):
    """An image, its mask on its own grid, and the pull-back from the cohort to it."""

    image: Volume
    mask: Bool[np.ndarray, "x y z"]
    to_image: Float[np.ndarray, "4 4"]


def _align(
    files: Files, template: Head, align: Aligner, remark: Remark, *, aligned: bool
) -> dict[str, _Scan]:
    """A subject's images by domain, the first one first."""
    first, *others = files.images
    reference = read_image(files.images[first], remark=remark)
    brain = reference_mask(files, reference, remark=remark)
    to_reference = align_head(template, head(reference, brain), align)
    scans = {first: _Scan(reference, brain, to_reference)}
    for domain in others:
        image = read_image(files.images[domain], remark=remark)
        to_image = IDENTITY if aligned else _align_rigidly(reference, image, files, brain, align)
        if files.mask is None:
            mask = foreground(image).mask
        else:
            to_brain = np.linalg.inv(to_image)
            mask = resampling.mask_like(Volume(brain, reference.affine), image, to_brain)
        scans[domain] = _Scan(image, mask, to_image @ to_reference)
    return scans


def _write(
    folder: Path,
    files: Files,
    scans: dict[str, _Scan],
    grid: Grid,
    remark: Remark,
    *,
    freesurfer: bool,
) -> dict[str, Any]:
    """Write images and labels on the grid; returns the record."""
    records = {}
    for domain, scan in scans.items():
        values, there = resampling.resample_masked(*scan, grid)
        if not there.any():
            raise InputError(f"{files.images[domain]}: nothing of it lies on the cohort's grid.")
        values = values - np.float32(zero_intensity(scan.image.array))
        write_image(folder / f"{files.participant}_{domain}.nii.gz", values, there, grid)
        records[domain] = {
            "file": str(files.images[domain]),
            "cohort_to_file_ras_mm": scan.to_image.tolist(),
            "share_on_grid": _share_on_grid(scan, there, grid),
        }
    numbers = []
    if files.labels is not None:
        to_labels = next(iter(scans.values())).to_image
        labels = _labels(files.labels, to_labels, grid, remark, freesurfer=freesurfer)
        images.write(folder / f"{files.participant}_dseg.nii.gz", labels)
        numbers = np.unique(labels.array[labels.array != 0]).tolist()
    return {"images": records, "mask": files.mask and str(files.mask), "labels": numbers}


def read_image(path: Path, *, remark: Remark = unheard) -> Volume:
    """An image; `remark` gets lines on what is unusual in its file.

    Raises:
        InputError: as `read_scan`.
    """
    header, image = read_scan(path)
    for line in header.lines:
        remark(line)
    return image


def reference_mask(
    files: Files, reference: Volume, *, remark: Remark = unheard
) -> Bool[np.ndarray, "x y z"]:
    """The mask of a subject's first image on its grid: the file's, or what the image shows."""
    if files.mask is None:
        mask = foreground(reference).mask
    else:
        _remark_on_header(files.mask, remark)
        given = images.read_mask(files.mask, remark=remark)
        mask = resampling.mask_like(given, reference, IDENTITY)
    if not mask.any():
        path = files.mask or next(iter(files.images.values()))
        raise InputError(f"{path}: expected a brain in the image's field of view, got none.")
    return mask


def _remark_on_header(path: Path, remark: Remark) -> None:
    for line in read_header(path).lines:
        remark(line)


def align_head(template: Head, head: Head, align: Aligner) -> Float[np.ndarray, "4 4"]:
    """The affine pull-back from a template to a subject.

    The masks' centres are brought together first: scanners put their origins anywhere, and fields
    of view that do not overlap are no fault here.
    """
    shift = np.eye(4)
    shift[:3, 3] = _centre_mm(head) - _centre_mm(template)
    image = Volume(head.image.array, np.linalg.inv(shift) @ head.image.affine)
    matrix = align(
        template.image, image, mode="affine", fixed_mask=template.mask, moving_mask=head.mask
    )
    return shift @ _checked(matrix)


def _centre_mm(head: Head) -> np.ndarray:
    index = np.argwhere(head.mask).mean(axis=0)
    return head.image.affine[:3, :3] @ index + head.image.affine[:3, 3]


def _align_rigidly(reference, image, files, brain, align) -> np.ndarray:
    """Pull-back from a subject's first image to another one; a mask from a file serves both."""
    fixed, moving = coarse(reference), coarse(image)
    mask = None
    if files.mask is not None:
        mask = coarse(Volume(brain, reference.affine), labels=True).array
    return _checked(align(fixed, moving, mode="rigid", fixed_mask=mask))


def _checked(matrix: np.ndarray) -> np.ndarray:
    size = float(np.linalg.det(matrix[:3, :3])) if np.isfinite(matrix).all() else 0.0
    if not 1 / 4 <= size <= 4:
        raise InputError(f"alignment: expected volumes to change less than 4 times, got {size:g}.")
    return matrix


def _share_on_grid(scan: _Scan, there: np.ndarray, grid: Grid) -> float:
    """The part of the mask's volume that the cohort's grid holds."""
    got = there.sum() * np.linalg.det(grid.affine[:3, :3])
    voxel = np.linalg.det(scan.image.affine[:3, :3]) / np.linalg.det(scan.to_image[:3, :3])
    return round(float(got / (scan.mask.sum() * voxel)), 3)


def _labels(
    path: Path, to_labels: np.ndarray, grid: Grid, remark: Remark, *, freesurfer: bool
) -> Volume:
    _remark_on_header(path, remark)
    labels = images.read_labels(path, remark=remark)
    low, high = int(labels.array.min()), int(labels.array.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: expected labels from 0 to 65535, got {low} to {high}.")
    if freesurfer:
        labels = Volume(merge_parcels(labels.array), labels.affine)
    array = resampling.resample_labels(labels, to_labels, grid)
    if not array.any():
        raise InputError(f"{path}: expected labels on the image, got none on the cohort's grid.")
    return Volume(images.smallest_labels(array), grid.affine)


def write_image(
    path: Path,
    values: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    grid: Grid,
) -> None:
    """Write an image as uint8: robust maximum 200, at least 1 inside the mask, 0 outside."""
    normal = normalize(values, mask)
    stored = np.where(mask, np.clip(np.rint(200 * normal), 1, 255), 0)
    with completed(path) as partial:
        images.write(partial, Volume(stored, grid.affine), dtype=np.uint8)
