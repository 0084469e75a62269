"""Where the files of each subject lie: HCP, BIDS and IXI trees, or a table of paths.

Only names are looked at here; no volume is opened. A subject's mask and labels lie in the space
(millimetres) of the first of the images, on any grid.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from jaxreg.configuration.preparation import Layout
from jaxreg.data.cohort import SPLITS
from jaxreg.data.image_choice import Wishes
from jaxreg.data.prepare.bids import bids_source
from jaxreg.data.prepare.source import DOMAINS, Files, Source
from jaxreg.errors import InputError, require_choice
from jaxreg.io.atomic import is_plain
from jaxreg.io.tables import read_table

LAYOUTS = get_args(Layout)
NO_WISHES: Wishes = {}


def find(layout: str, path: Path, *, wishes: Wishes = NO_WISHES) -> Source:
    """The subjects of a folder or a table in a layout of `LAYOUTS`.

    `wishes` say which of several images a user wants; the layout bids alone reads them.

    Raises:
        InputError: an unknown layout, nothing at `path`, no subject found in this layout, or a wish
            that no image meets.
    """
    require_choice("layout", layout, LAYOUTS)
    if layout == "table":
        found, wanted = _table(path), "a row with an image"
    elif not path.is_dir():
        raise InputError(f"{path}: no such folder.")
    elif layout == "bids":
        found, wanted = bids_source(path, wishes), "sub-*/[ses-*/]anat/*_T1w.nii.gz (or T2w, FLAIR)"
    elif layout == "hcp":
        found, wanted = _hcp(path), f"<SUBJECT>/{_HCP['T1w']}"
    else:
        found, wanted = _ixi(path), "IXI*-T1.nii.gz or IXI*-T2.nii.gz in it or below"
    if not found.subjects:
        first = "".join(f" The first: {n}: {r}." for n, r in [*found.left_out.items()][:1])
        raise InputError(f"{path}: expected {wanted} (--layout {layout}), found none.{first}")
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
    images: dict[str, dict[str, list[Path]]] = {}
    for domain, ending in (("T1w", "T1"), ("T2w", "T2")):
        for path in sorted(root.rglob(f"IXI*-{ending}.nii.gz")):
            subject = images.setdefault(f"sub-{path.name.split('-')[0]}", {})
            subject.setdefault(domain, []).append(path)
    left_out = {name: reason for name in sorted(images) if (reason := _several(images[name]))}
    subjects = [
        Files(name, {domain: paths[0] for domain, paths in images[name].items()})
        for name in sorted(images)
        if name not in left_out
    ]
    return Source(subjects, left_out, aligned=False, freesurfer=False)


def _several(images: Mapping[str, list[Path]]) -> str:
    """Why nothing decides between a subject's images of one contrast; empty where there is one."""
    for domain, paths in images.items():
        if len(paths) > 1:
            places = ", ".join(map(str, paths))
            return (
                f"several {domain}: {places}; leave one of them, or give a table (--layout table)"
            )
    return ""


def _table(table: Path) -> Source:
    """A TSV: participant_id, any of T1w, T2w, FLAIR, mask, dseg (paths from it), maybe split."""
    rows = read_table(table, ("participant_id",))
    if rows and not set(DOMAINS) & set(rows[0]):
        raise InputError(f"{table}: expected a column of {', '.join(DOMAINS)}; got {[*rows[0]]}.")
    subjects, left_out = {}, {}
    for row in rows:
        name = row["participant_id"]
        if not is_plain(name) or name in subjects:
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
