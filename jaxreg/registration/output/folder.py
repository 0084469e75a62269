"""The folder of a registration: what may lie in it, and when it may be written."""

import re
from pathlib import Path

from jaxreg.io.atomic import entries, require_free_folder

THUMBNAIL = "thumbnail.jpg"
"""A small picture for the page over many pairs."""
NAMES = (
    "moved.nii.gz",
    "warp.nii.gz",
    "inverse_warp.nii.gz",
    "affine.mat",
    "moved_labels.nii.gz",
    "jacobian.nii.gz",
    "fixed_mask.nii.gz",
    "moving_mask.nii.gz",
    "provenance.json",
    "report.html",
    "view3d.html",
    THUMBNAIL,
    "timings.json",
    "curve.tsv",
    "atlas_labels.nii.gz",
    "volumes.tsv",
)
"""What a run may write; of a sweep also `moved_lam-<λ>.nii.gz`, and of more images of one subject
`moved_<name>.nii.gz` and `rigid_<name>.mat`, and halfway between two images of one subject
`fixed_halfway.nii.gz` and `halfway_to_fixed.mat`, and the same of the moving one."""

_FURTHER = re.compile(
    r"moved_.+\.nii\.gz|rigid_.+\.mat|(fixed|moving)_halfway\.nii\.gz|halfway_to_(fixed|moving)\.mat"
)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise InputError where a run may not be written to a folder.

    A folder with nothing but the report of a failed run is free. `overwrite` replaces a run, and
    only a run: a folder with any file that no run writes stays.
    """
    require_free_folder(
        folder,
        lambda name: name in NAMES or _FURTHER.fullmatch(name) is not None,
        overwrite=overwrite,
        free_with={"report.html"},
    )


def holds_nothing(folder: Path) -> bool:
    """Whether a run may be written to a folder: there is none, or only a failed run's report."""
    if not folder.is_dir():
        return not folder.exists()
    return set(entries(folder)) <= {"report.html"}
