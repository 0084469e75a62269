"""Where the files of each subject lie: HCP, BIDS and IXI trees, or a table of paths.

Only names are looked at here; no volume is opened. A subject's mask and labels lie in the space
(millimetres) of the first of the images, on any grid.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple, get_args

from jaxreg.configuration.preparation import Layout
from jaxreg.data.cohort import SPLITS
from jaxreg.errors import InputError, require_choice
from jaxreg.io.tables import read_table

LAYOUTS = get_args(Layout)
DOMAINS = ("T1w", "T2w", "FLAIR")
"""Contrasts that are looked for; the first that a subject has is the reference of the others."""


class Files(NamedTuple):
    """One subject's files; `split` only where the source itself says it."""

    participant: str
    images: dict[str, Path]
    mask: Path | None = None
    labels: Path | None = None
    split: str | None = None


class Source(NamedTuple):
    """What a source folder or table holds, subjects sorted by identifier."""

    subjects: list[Files]
    left_out: dict[str, str]
    """Who is left out, and why."""
    aligned: bool
    """The images of a subject are aligned to each other already."""
    freesurfer: bool
    """Labels carry FreeSurfer's numbers."""


def find(layout: str, path: Path) -> Source:
    """The subjects of a folder or a table in a layout of `LAYOUTS`.

    Raises:
        InputError: an unknown layout, nothing at `path`, or no subject found in this layout.
    """
    require_choice("layout", layout, LAYOUTS)
    if layout == "table":
        found, wanted = _table(path), "a row with an image"
    elif not path.is_dir():
        raise InputError(f"{path}: no such folder.")
    elif layout == "bids":
        found, wanted = _bids(path), "sub-*/[ses-*/]anat/*_T1w.nii.gz (or T2w, FLAIR)"
    elif layout == "hcp":
        found, wanted = _hcp(path), f"<SUBJECT>/{_HCP['T1w']}"
    else:
        found, wanted = _ixi(path), "IXI*-T1.nii.gz or IXI*-T2.nii.gz in it or below"
    if not found.subjects:
        raise InputError(f"{path}: expected {wanted} (--layout {layout}), found none.")
    return found


_HCP = {
    "T1w": "T1w/T1w_acpc_dc_restore_brain.nii.gz",
    "T2w": "T1w/T2w_acpc_dc_restore_brain.nii.gz",
}
_HCP_MASK = "T1w/brainmask_fs.nii.gz"
_HCP_LABELS = "T1w/aparc+aseg.nii.gz"


def _hcp(root: Path) -> Source:
    """S1200: the rigid ACPC space. MNINonLinear is warped to a template and never read."""
    subjects, left_out = [], {}
    for folder in _folders(root, "*"):
        name = f"sub-{folder.name}"
        images = {d: folder / path for d, path in _HCP.items() if (folder / path).is_file()}
        if images:
            mask, labels = _if_file(folder / _HCP_MASK), _if_file(folder / _HCP_LABELS)
            subjects.append(Files(name, images, mask, labels))
        else:
            left_out[name] = f"neither {' nor '.join(_HCP.values())}"
    return Source(subjects, left_out, aligned=True, freesurfer=True)


def _ixi(root: Path) -> Source:
    """IXI: IXI002-Guys-0828-T1.nii.gz, T1 and T2 in folders of their own or together; no masks."""
    images: dict[str, dict[str, Path]] = {}
    for domain, ending in (("T1w", "T1"), ("T2w", "T2")):
        for path in sorted(root.rglob(f"IXI*-{ending}.nii.gz")):
            images.setdefault(f"sub-{path.name.split('-')[0]}", {}).setdefault(domain, path)
    subjects = [Files(name, images[name]) for name in sorted(images)]
    return Source(subjects, {}, aligned=False, freesurfer=False)


_BIDS_LABELS = ("_desc-aparcaseg_dseg", "_desc-aseg_dseg", "_dseg")


def _bids(root: Path) -> Source:
    """Raw images, the first session and run that has the first domain of `DOMAINS`.

    A derivative belongs to an image if its name is the image's but for `desc` and suffix: then it
    lies in the image's own space. Those of a mean of several images, or in a template's space
    (`space-…`), are not used. All subjects have the same kind of labels, since the numbers differ:
    the kind that most subjects have.
    """
    images, left_out = {}, {}
    for folder in _folders(root, "sub-*"):
        found = _bids_images(folder)
        if found:
            images[folder.name] = found
        else:
            left_out[folder.name] = f"no {', '.join(DOMAINS)} in anat"
    derived = {name: _bids_derivatives(root, name, found) for name, found in images.items()}
    count = Counter(kind for files in derived.values() for kind in files)
    kind = max(_BIDS_LABELS, key=lambda k: count[k])
    subjects = [
        Files(name, found, derived[name].get("_desc-brain_mask"), derived[name].get(kind))
        for name, found in images.items()
    ]
    return Source(subjects, left_out, aligned=False, freesurfer=kind != "_dseg")


def _bids_images(subject: Path) -> dict[str, Path]:
    """The first image of each domain in the session that has the first domain."""
    sessions = [subject / "anat", *(s / "anat" for s in _folders(subject, "ses-*"))]
    found = []
    for folder in sessions:
        files = {d: sorted(folder.glob(f"{subject.name}_*{d}.nii*")) for d in DOMAINS}
        found.append({d: paths[0] for d, paths in files.items() if paths})
    for domain in DOMAINS:
        for images in found:
            if domain in images:
                return images
    return {}


def _bids_derivatives(root: Path, name: str, images: dict[str, Path]) -> dict[str, Path]:
    """Mask and label maps of the reference image, by the end of their names."""
    stem = next(iter(images.values())).name.split(".nii")[0].rsplit("_", 1)[0]
    found: dict[str, Path] = {}
    for subject in sorted(root.glob(f"derivatives/*/{name}")):
        for kind in ("_desc-brain_mask", *_BIDS_LABELS):
            paths = sorted(subject.glob(f"**/anat/{stem}{kind}.nii*"))
            if paths:
                found.setdefault(kind, paths[0])
    return found


def _table(table: Path) -> Source:
    """A TSV: participant_id, any of T1w, T2w, FLAIR, mask, dseg (paths from it), maybe split."""
    rows = read_table(table, ("participant_id",))
    if rows and not set(DOMAINS) & set(rows[0]):
        raise InputError(f"{table}: expected a column of {', '.join(DOMAINS)}; got {[*rows[0]]}.")
    subjects, left_out = {}, {}
    for row in rows:
        name = row["participant_id"]
        if not name or Path(name).name != name or name in (".", "..") or name in subjects:
            raise InputError(f"{table}: expected plain, different identifiers; got {name!r}.")
        split = _cell(row, "split")
        if split is not None and split not in SPLITS:
            raise InputError(f"{table}: {name}: expected {'|'.join(SPLITS)}, got {split!r}.")
        cells = {k: _cell(row, k) for k in (*DOMAINS, "mask", "dseg")}
        paths = {k: table.parent / cell for k, cell in cells.items() if cell is not None}
        images = {d: paths[d] for d in DOMAINS if d in paths}
        if images:
            subjects[name] = Files(name, images, paths.get("mask"), paths.get("dseg"), split)
        else:
            left_out[name] = "no image in its row"
    ordered = [subjects[name] for name in sorted(subjects)]
    return Source(ordered, left_out, aligned=False, freesurfer=False)


def _cell(row: dict[str, str], column: str) -> str | None:
    value = (row.get(column) or "").strip()
    return None if value in ("", "n/a") else value


def _folders(root: Path, pattern: str) -> list[Path]:
    return sorted(p for p in root.glob(pattern) if p.is_dir() and not p.name.startswith("."))


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None
