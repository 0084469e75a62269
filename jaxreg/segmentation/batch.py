"""Images segmented one after the other, and one table of their volumes: what `jaxreg segment` does.

A run over several images that was stopped goes on where it was. No volume of a finished image is
kept, so that the memory does not grow with their number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxreg.errors import InputError, Kind, kind_of, reason_of
from jaxreg.io.atomic import check_inputs_outside, claimed
from jaxreg.io.checksums import file_sha256
from jaxreg.io.files import require_file
from jaxreg.io.remarks import WARNING
from jaxreg.io.tables import read_table, write_table
from jaxreg.segmentation.files import BRAIN, RECORD, VOLUMES, check_folder, segment_scan

_SECONDS_OF_PATIENCE = 60.0
"""How long to wait for another run that writes the table."""


class Segmented(NamedTuple):
    """What became of the images of a run, by their paths.

    Attributes:
        done: what `segmentation.json` says of each segmented image.
        failed: the reasons of those that failed.
        kinds: whose fault each failure is.
    """

    done: dict[str, dict[str, Any]]
    failed: dict[str, str]
    kinds: dict[str, Kind]


def segment_files(
    images: Sequence[Path],
    out: Path,
    *,
    networks: Path | None = None,
    brain: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Segmented:
    """Segment images: one into `out`, several into a folder of `out` each, by their names.

    Of several, one that fails for whatever reason does not stop the others, one whose folder holds
    its segmentation by these networks is passed, and `volumes.tsv` in `out` has a row for each that
    is done, in this run or an earlier one.

    Raises:
        InputError: no image, two images of one name, a folder in use; of a single image also what
            `segment_scan` raises.
    """
    folders = folders_of(images, out)
    check_inputs_outside(out, images)
    for path in images:
        require_file(path)
    several = len(folders) > 1
    if several and not overwrite and _record(out):
        raise InputError(
            f"{out}: holds the segmentation of one image, whose {VOLUMES} the table of several "
            "would replace; give --overwrite, or another --out."
        )
    there = _finished(folders, networks, brain) if several and not overwrite else {}
    for path, folder in folders.items():
        if path not in there:
            check_folder(folder, overwrite=overwrite)
    if several:  # an unreadable model stops the run here, and is no failure of each image
        _sha256_of(networks)
    done, failed, kinds = Segmented({}, {}, {})
    for path, folder in folders.items():
        if path in there:
            done[str(path)] = there[path]
            say(f"{path}: segmented before; results are in {folder}")
            continue
        try:
            found = segment_scan(path, networks=networks)
            found.save(folder, brain=brain, overwrite=overwrite)
        except Exception as error:  # whatever it is, the other images go on
            if not several:
                raise
            reason = reason_of(error)
            reason = reason if isinstance(error, InputError) else f"{path}: {reason}"
            failed[str(path)], kinds[str(path)] = reason, kind_of(error)
            say(f"{WARNING}{reason}")
            continue
        done[str(path)] = found.provenance()
        if found.doubt is not None:
            say(f"{WARNING}{path}: {found.doubt}.")
        say(f"{path}: brain of {found.brain_ml / 1000:.2f} litres; results are in {folder}")
    if several and done:
        _write_volumes_of_all(out, {folders[path]: path for path in images if str(path) in done})
    return Segmented(done, failed, kinds)


def folders_of(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The folder of results of each image.

    Raises:
        InputError: no image, or two of one name.
    """
    if not images:
        raise InputError("expected IMAGE, or --images TABLE.tsv.")
    if len(images) == 1:
        return {images[0]: out}
    folders = {path: out / path.name.split(".")[0] for path in images}
    if len(set(folders.values())) < len(images):
        names = [path.name.split(".")[0] for path in images]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"expected images of different names, since each has its folder {out}/NAME; got "
            f"{twice} twice."
        )
    return folders


def _finished(
    folders: dict[Path, Path], networks: Path | None, brain: bool
) -> dict[Path, dict[str, Any]]:
    """The records of the images whose folders hold what would be written into them now."""
    records = {path: _record(folder) for path, folder in folders.items()}
    return {
        path: record
        for path, record in records.items()
        if record
        and record.get("networks_sha256") == _sha256_of(networks)
        and record.get("image_sha256") == file_sha256(path)
        and (not brain or (folders[path] / BRAIN).is_file())
    }


def _record(folder: Path) -> dict[str, Any]:
    """What `segmentation.json` of a folder says; nothing where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _sha256_of(networks: Path | None) -> dict[str, str]:
    """The hashes of the segmentation networks of a folder; None is for the bundled ones."""
    from jaxreg.segmentation.networks import load_segmentation

    return load_segmentation(networks)[0].sha256


def _write_volumes_of_all(out: Path, finished: dict[Path, Path]) -> None:
    """Write a row for each image, with the volumes of its brain and of its structures in ml.

    All folders of `out` have their row, in the order of their names, whichever run wrote them;
    `finished` has the images of this run by their folders. Of several runs at once one waits for
    the other, so the last one to write has seen all.
    """
    with claimed(out / VOLUMES, seconds=_SECONDS_OF_PATIENCE):
        names: dict[int, str] = {}
        volumes_of = {}
        for folder in sorted(path.parent for path in out.glob(f"[!.]*/{RECORD}")):
            image = finished.get(folder, _record(folder).get("image", folder.name))
            volumes = read_table(folder / VOLUMES, ("number", "name", "ml"))
            names.update((int(row["number"]), row["name"]) for row in volumes)
            volumes_of[folder] = image, {row["name"]: row["ml"] for row in volumes}
        columns = [names[number] for number in sorted(names)]
        rows = [
            (image, *(volumes.get(name, "n/a") for name in columns))
            for image, volumes in volumes_of.values()
        ]
        write_table(out / VOLUMES, ("image", *columns), rows)
