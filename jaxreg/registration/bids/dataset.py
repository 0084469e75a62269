"""The folder of derivatives as a data set of its own: what describes it, and what may be there."""

import json
from pathlib import Path
from typing import Any

from jaxreg._version import __version__
from jaxreg.data.bids import description_of
from jaxreg.errors import InputError
from jaxreg.io.atomic import completed, entries

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
WORK = "work"
_IGNORED = """*.html
*_xfm.*
/work
"""
"""What BIDS has no names for yet: transforms (BEP 14), reports, and jaxreg's own record."""
_README = """# Registered images

Written by jaxreg (`jaxreg bids`) from the data set that `DatasetLinks` of
`dataset_description.json` calls `raw`.

* `sub-*/[ses-*/]anat/*_xfm.*` are the transforms. `from-A_to-B` brings images of the space A onto
  the space B. Both .txt (linear) and .nii.gz (displacement field, mm, LPS) are in ITK's form.
* `sub-*/[ses-*/]anat/*_space-B_desc-*` are the moved images on the grid of B.
* `sub-*_from-A_to-B.html` shows each result with its numbers.
* `work/` holds the full record of each pair, from which an interrupted run continues, and
  `results.tsv`, `left_out.tsv` and `choices.tsv`.
"""


def generated_by() -> list[dict[str, str]]:
    """The entry GeneratedBy of BIDS."""
    return [{"Name": "jaxreg", "Version": __version__}]


def check_place(root: Path, out: Path) -> None:
    """Raise InputError where derivatives of `root` may not be written to `out`."""
    here, there = out.resolve(), root.resolve()
    if here == there or here in there.parents:
        raise InputError(f"{out}: holds the data set itself; give another --out.")
    if there in here.parents and here.relative_to(there).parts[0] != "derivatives":
        raise InputError(f"{out}: expected {root / 'derivatives'}/NAME inside the data set.")
    shown = [name for name in entries(out) if name[0] != "."] if out.is_dir() else []
    if not shown:  # hidden ones are another run's, on the way
        return
    names = [tool.get("Name") for tool in description_of(out).get("GeneratedBy", [])]
    if "jaxreg" not in names:
        raise InputError(f"{out}: holds files that are not jaxreg's derivatives; give another.")


def describe(root: Path, out: Path) -> None:
    """Write the files that make `out` a BIDS data set of derivatives of `root`.

    Raises:
        InputError: they cannot be written, or the description of `root` is no JSON.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: no folder for the derivatives ({error.strerror}).") from error
    raw = description_of(root)
    values: dict[str, Any] = {
        "Name": f"jaxreg: registered images of {raw.get('Name', root.resolve().name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
        "SourceDatasets": [_source(root, raw)],
        "DatasetLinks": {"raw": raw_link(root, out)},
    }
    kept = ("License", "Authors", "HowToAcknowledge", "EthicsApprovals", "HEDVersion")
    values |= {key: raw[key] for key in kept if key in raw}
    write_json(out / DESCRIPTION, values)
    for name, text in ((".bidsignore", _IGNORED), ("README.md", _README)):
        with completed(out / name) as partial:
            partial.write_text(text, encoding="utf-8")


def raw_link(root: Path, out: Path) -> str:
    """Where the data set lies, as DatasetLinks says it: relative where `out` lies inside."""
    here, there = out.resolve(), root.resolve()
    if there in here.parents:
        return "/".join([".."] * len(here.relative_to(there).parts))
    return there.as_uri()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON that appears when it is complete.

    Raises:
        InputError: it cannot be written.
    """
    with completed(path) as partial:
        text = json.dumps(values, indent=2, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _source(root: Path, raw: dict[str, Any]) -> dict[str, str]:
    if "DatasetDOI" in raw:
        return {"DOI": raw["DatasetDOI"]}
    return {"URL": root.resolve().as_uri()}
