"""Which anatomical files a BIDS data set holds, by subject. `ancpbids` lives here alone.

The library finds the files, by names alone: JSON files and tables are kept from it, because one
that is damaged would end it. Their entities are read from the names (`image_choice.entities_of`),
because the library takes `run-01` for the number 1, and a derivative's name keeps what its source
had.
"""

import json
from pathlib import Path
from typing import Any

import ancpbids
from ancpbids.vfs import LocalVfs

from jaxreg.data.image_choice import ENDINGS, Candidate, candidate
from jaxreg.errors import InputError, first_line

_OTHER_DATA = (
    *("beh", "dwi", "eeg", "emg", "fmap", "func", "ieeg", "meg", "micr", "motion", "mrs", "nirs"),
    *("perf", "pet", "figures", "surf", "mri", "label", "stats", "scripts", "touch", "trash"),
)
"""Folders that hold no images of `anat`, of BIDS and of FreeSurfer: they are not looked into."""
_PASSED = [
    *("sourcedata", "code", "stimuli", ".*", "*/.*", "*.json", "*.tsv"),
    *(f"*/{name}" for name in _OTHER_DATA),
]


class _NamesAlone(LocalVfs):
    """A file system whose files the library lists and never opens."""

    def exists(self, path: str) -> bool:
        """Whether the library may open a file: its schema's version, a pickle, .bidsignore."""
        return False


def raw_images(root: Path, suffixes: tuple[str, ...]) -> dict[str, list[Candidate]]:
    """The images of these suffixes in `anat`, by subject (`sub-01`), of all sessions or none.

    A subject that has no such image has an empty list.

    Raises:
        InputError: a folder that cannot be read.
    """
    dataset = _read(root, [*_PASSED, "derivatives"])
    found = {folder.name: [] for folder in dataset.subjects}
    for path in _images(dataset, "raw", suffixes):
        *above, _ = path.relative_to(root).parts
        if above[0] in found:
            session = above[1].removeprefix("ses-") if above[1].startswith("ses-") else ""
            found[above[0]].append(candidate(path, **({"ses": session} if session else {})))
    return dict(sorted(found.items()))


def images_outside_anat(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Images of these suffixes that lie in sub-* or ses-* itself, where BIDS has none."""
    below = [path for depth in ("sub-*", "sub-*/ses-*") for path in root.glob(f"{depth}/sub-*")]
    ends = tuple(f"_{suffix}{ending}" for suffix in suffixes for ending in ENDINGS)
    return sorted(path for path in below if path.name.endswith(ends))


def derived_images(root: Path, suffixes: tuple[str, ...]) -> dict[str, list[Candidate]]:
    """The images of these suffixes that any pipeline in `derivatives` has in `anat`, by subject.

    Each has the entity `pipeline`, the name of its pipeline's folder.

    Raises:
        InputError: as `raw_images`.
    """
    found: dict[str, list[Candidate]] = {}
    for path in _images(_read(root, _PASSED), "derivatives", suffixes):
        _, pipeline, *below = path.relative_to(root).parts
        if below[0].startswith("sub-"):
            found.setdefault(below[0], []).append(candidate(path, pipeline=pipeline))
    return found


def description_of(root: Path) -> dict[str, Any]:
    """What a data set's dataset_description.json says; empty where there is none.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    path = root / "dataset_description.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({first_line(error)}).") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(values).__name__}.")
    return values


def _read(root: Path, passed: list[str]) -> Any:
    """The data set as the library finds it; a pickle that lies there is not opened."""
    options = ancpbids.DatasetOptions(ignore=passed, ignore_pickle_file=True)
    try:
        return ancpbids.load_dataset(str(root), options, vfs=_NamesAlone())
    except (OSError, ValueError, RecursionError) as error:
        reason = first_line(error)
        raise InputError(f"{root}: not readable as a BIDS data set ({reason}).") from error


def _images(dataset: Any, scope: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Their paths, sorted."""
    found = dataset.query(
        scope=scope, return_type="file", suffix=list(suffixes), extension=list(ENDINGS)
    )
    paths = (Path(name) for name in found or ())
    return sorted(path for path in paths if path.parent.name == "anat")
