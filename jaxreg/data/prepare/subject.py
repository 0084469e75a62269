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
from jaxreg.data.prepare.brains import IDENTITY, Brain, Brains, brain_of
from jaxreg.data.prepare.freesurfer_labels import merge_parcels
from jaxreg.data.prepare.source import Files
from jaxreg.data.prepare.template import Aligner, Head, head
from jaxreg.data.scan import read_scan
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Grid, Volume, grid_of
from jaxreg.io import images
from jaxreg.io.atomic import completed
from jaxreg.io.headers import opened
from jaxreg.io.images import Remark, unheard


def record_file(out: Path, participant: str) -> Path:
    """Where the record of a finished subject lies: files, matrices, labels, what is on the grid."""
    return out / participant / f"{participant}_prepare.json"


def prepare_subject(
    files: Files,
    template: Head,
    out: Path,
    align: Aligner,
    brains: Brains,
    *,
    aligned: bool,
    freesurfer: bool,
) -> None:
    """Make a subject's folder in `out`; it appears when it is complete.

    `aligned`: the images lie in one space already. `freesurfer`: cortical parcels are merged.
    `brains` says what is found by segmentation.

    Raises:
        InputError: an image, mask or label map that cannot be used, or a failed alignment.
    """
    remarks: list[str] = []
    brain, scans = _align(files, template, align, brains, remarks.append, aligned=aligned)
    partial = out / f".{files.participant}"
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run left
    partial.mkdir()
    try:
        grid = grid_of(template.image)
        record = _write(partial, files, scans, grid)
        labels = _labels(files, brain, scans, grid, remarks.append, freesurfer=freesurfer)
        if labels is not None:
            images.write(partial / f"{files.participant}_dseg.nii.gz", labels)
            record["labels"] = np.unique(labels.array[labels.array != 0]).tolist()
            record["labels_origin"] = "given" if brain.labels is None else "automatic"
        record["mask_origin"] = brain.origin
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
    files: Files,
    template: Head,
    align: Aligner,
    brains: Brains,
    remark: Remark,
    *,
    aligned: bool,
) -> tuple[Brain, dict[str, _Scan]]:
    """The brain of a subject's first image, and the images by domain, the first one first."""
    first, *others = files.images
    reference = read_image(files.images[first], remark=remark)
    labels = brains.labels and files.labels is None
    brain = brain_of(
        files.images[first], reference, files.mask, brains, labels=labels, remark=remark
    )
    to_reference = align_head(template, head(reference, brain.mask), align)
    scans = {first: _Scan(reference, brain.mask, to_reference)}
    for domain in others:
        image = read_image(files.images[domain], remark=remark)
        shown = foreground(image)
        cut = brain.origin == "extracted" and not shown.is_brain and brains.extract != "never"
        shared = brain.known or cut
        mask = brain.mask if shared else None
        to_image = IDENTITY if aligned else _align_rigidly(reference, image, mask, align)
        if shared:
            to_brain = np.linalg.inv(to_image)
            mask = resampling.mask_like(Volume(brain.mask, reference.affine), image, to_brain)
        else:
            mask = shown.mask
        scans[domain] = _Scan(image, mask, to_image @ to_reference)
    return brain, scans


def _write(folder: Path, files: Files, scans: dict[str, _Scan], grid: Grid) -> dict[str, Any]:
    """Write the images on the grid; returns the record."""
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
    mask = files.mask and str(files.mask)
    return {"images": records, "mask": mask, "labels": [], "labels_origin": "n/a"}


def read_image(path: Path, *, remark: Remark = unheard) -> Volume:
    """An image; `remark` gets lines on what is unusual in its file.

    Raises:
        InputError: as `read_scan`.
    """
    header, image = read_scan(path)
    for line in header.lines:
        remark(line)
    return image


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


def _align_rigidly(
    reference: Volume, image: Volume, mask: Bool[np.ndarray, "x y z"] | None, align: Aligner
) -> Float[np.ndarray, "4 4"]:
    """Pull-back from a subject's first image to another one; `mask` is the first one's brain."""
    fixed, moving = coarse(reference), coarse(image)
    brain = None if mask is None else coarse(Volume(mask, reference.affine), labels=True).array
    return _checked(align(fixed, moving, mode="rigid", fixed_mask=brain))


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
    files: Files,
    brain: Brain,
    scans: dict[str, _Scan],
    grid: Grid,
    remark: Remark,
    *,
    freesurfer: bool,
) -> Volume | None:
    """The labels on the cohort's grid, of the file or made by segmentation; None without any."""
    path, labels = files.labels, brain.labels
    if path is not None:
        labels = images.read_labels(opened(path, remark), remark=remark)
    if labels is None:
        return None
    low, high = int(labels.array.min()), int(labels.array.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: expected labels from 0 to 65535, got {low} to {high}.")
    if freesurfer:
        labels = Volume(merge_parcels(labels.array), labels.affine)
    array = resampling.resample_labels(labels, next(iter(scans.values())).to_image, grid)
    if not array.any():
        where = path or next(iter(files.images.values()))
        raise InputError(f"{where}: expected labels on the image, got none on the cohort's grid.")
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
