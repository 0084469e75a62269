"""A pair's finished folder published under BIDS names, with JSON sidecars.

Images and fields are hard links to the files in the pair's folder where the file system has such
links, so they take no space twice; else they are copies.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxreg.data.image_choice import entities_of, suffix_of
from jaxreg.io.atomic import completed
from jaxreg.io.checksums import file_sha256
from jaxreg.io.headers import read_header
from jaxreg.io.images import smallest_labels, write_like
from jaxreg.io.itk_transforms import read_transform, write_affine
from jaxreg.registration.apply import load_chain
from jaxreg.registration.bids.dataset import generated_by, write_json
from jaxreg.registration.bids.pairs import BidsPair
from jaxreg.registration.bids.template import Atlas, SharedTemplate
from jaxreg.registration.output.files import written_map

_LAST = ("space", "split", "recording", "chunk", "seg", "res", "den", "label", "desc")
"""Entities that come after all others in a name, in the order of BIDS."""


class Job(NamedTuple):
    """What the pairs of a run share: `moving` and `fixed` name the spaces, as in `from-T2w`."""

    root: Path
    out: Path
    moving: str
    fixed: str
    template: SharedTemplate | None

    @property
    def atlas(self) -> Atlas | None:
        """The labels of the template."""
        return None if self.template is None else self.template.atlas

    @property
    def name(self) -> str:
        """Direction of the transform, as in the names of BIDS."""
        return f"from-{self.moving}_to-{self.fixed}"

    def uri(self, path: Path) -> str:
        """A file as a BIDS URI, or as a file's where it is in neither data set."""
        for name, folder in (("", self.out), ("raw", self.root)):
            if path.is_relative_to(folder.absolute()):
                return f"bids:{name}:{path.relative_to(folder.absolute()).as_posix()}"
        return path.as_uri()


def publish(job: Job, pair: BidsPair, folder: Path) -> bool:
    """Give a finished pair its BIDS names below `job.out`; whether that had not been done yet.

    The sidecar of the transform is written last and names all files, so that another result's
    files are removed and an interrupted publication is repeated.

    Raises:
        InputError: a file cannot be written.
    """
    own = _Names(job, pair)
    marker = own.transform(job.moving, job.fixed, ".json")
    record_sha256 = file_sha256(folder / "provenance.json")
    former = _former(marker)
    files = [job.out / name for name in former.get("Files", [])]
    state = {"RecordSHA256": record_sha256}
    if job.atlas is not None:
        state["AtlasSHA256"] = job.atlas.sha256
    known = {key: former.get(key) for key in ("RecordSHA256", "AtlasSHA256") if key in former}
    if known == state and all(path.is_file() for path in files):
        return False
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    own.anat.mkdir(parents=True, exist_ok=True)
    new = list(_written(own, folder, record))
    names = sorted(path.relative_to(job.out.absolute()).as_posix() for path in new)
    forward = _transform_record(own, record, job.moving, job.fixed)
    write_json(marker, forward | state | {"Files": names})
    _remove_former([path for path in files if path.absolute() not in new], new)
    return True


def _remove_former(former: list[Path], new: list[Path]) -> None:
    """Remove what another result wrote; a mask stays, because another direction may have it too."""
    stems = {path.name.split(".")[0] for path in new}
    for path in former:
        if suffix_of(path.name) == "mask":
            continue
        path.unlink(missing_ok=True)
        stem = path.name.split(".")[0]
        if stem not in stems:
            path.with_name(f"{stem}.json").unlink(missing_ok=True)


class _Names:
    """Where the files of a pair go."""

    def __init__(self, job: Job, pair: BidsPair):
        self.job, self.pair = job, pair
        below = Path(pair.subject, *([f"ses-{pair.session}"] if pair.session else []), "anat")
        self.anat = job.out.absolute() / below

    def transform(self, source: str, target: str, ending: str) -> Path:
        """The transform that brings images from one space to another."""
        return self.anat / f"{self.pair.name}_from-{source}_to-{target}_mode-image_xfm{ending}"

    def image(self, suffix: str | None = None, **entities: str) -> Path:
        """An image with the entities of the moving one, and these."""
        return self.anat / derived_name(self.pair.moving.name, suffix=suffix, **entities)

    @property
    def report(self) -> Path:
        """The page with the result."""
        return self.job.out.absolute() / f"{self.pair.name}_{self.job.name}.html"


def derived_name(name: str, *, suffix: str | None = None, **entities: str) -> str:
    """The name of a derivative: that of its source with other entities and suffix, as .nii.gz."""
    parts = {**entities_of(name), **entities}
    order = sorted(parts, key=lambda key: _LAST.index(key) if key in _LAST else -1)
    named = [f"{key}-{parts[key]}" for key in order]
    return "_".join([*named, suffix or suffix_of(name)]) + ".nii.gz"


def _written(own: _Names, folder: Path, record: dict[str, Any]) -> Iterator[Path]:
    """Write all files of a pair but the marker; gives their paths, without those of sidecars."""
    job, pair = own.job, own.pair
    kind = record["command"]["transform"]
    yield from _transforms(own, folder, record, kind)
    moved = own.image(space=job.fixed, desc=kind)
    head = (folder / "moving_mask.nii.gz").is_file() or not record["moving"]["brain_known"]
    yield _placed(
        folder / "moved.nii.gz",
        moved,
        _sidecar(
            f"The {job.moving} image on the grid of {job.fixed}, by a {kind} transform.",
            [pair.moving, _forward(own, kind)],
            job,
            reference=pair.fixed,
            SkullStripped=not head,
        ),
    )
    masks = [("moving", pair.moving, job.moving)]
    masks += [] if job.template is not None else [("fixed", pair.fixed, job.fixed)]
    for role, image, space in masks:
        mask = folder / f"{role}_mask.nii.gz"
        if mask.is_file():
            named = {} if space == "T1w" else {"space": space}
            path = own.anat / derived_name(image.name, suffix="mask", desc="brain", **named)
            text = f"The brain in the {space} image, by segmentation."
            sidecar = _sidecar(text, [image], job, reference=image, Type="Brain")
            yield _placed(mask, path, sidecar)
    if job.atlas is not None:
        yield _atlas_labels(own, job.atlas, kind)
    report = folder / "report.html"
    if report.is_file():
        yield _placed(report, own.report, None)


def _atlas_labels(own: _Names, atlas: Atlas, kind: str) -> Path:
    """Write the template's labels on the grid of the subject's image, with their volumes."""
    job, pair = own.job, own.pair
    header = read_header(pair.moving)
    back = own.transform(job.fixed, job.moving, ".nii.gz" if kind == "deformable" else ".txt")
    inverse = written_map(load_chain([back]), header.grid)
    labels = atlas.in_subject(inverse)
    path = own.anat / derived_name(pair.moving.name, suffix="dseg", seg=atlas.name)
    with completed(path) as partial:
        write_like(partial, smallest_labels(labels), header.geometry)
    text = (
        f"The labels of {atlas.name} in the {job.moving} image; their names are in {atlas.table}."
    )
    volumes = atlas.volumes_ml(labels, header.grid)
    sidecar = _sidecar(text, [pair.moving, back], job, reference=pair.moving, VolumesML=volumes)
    write_json(_beside(path), sidecar)
    return path


def _transforms(own: _Names, folder: Path, record: dict[str, Any], kind: str) -> Iterator[Path]:
    """Write the transform and its inverse; a linear one as ITK's text."""
    forth, back = (own.job.moving, own.job.fixed), (own.job.fixed, own.job.moving)
    if kind == "deformable":
        yield _placed(folder / "warp.nii.gz", own.transform(*forth, ".nii.gz"), None)
        inverse = own.transform(*back, ".nii.gz")
        yield _placed(folder / "inverse_warp.nii.gz", inverse, None)
    else:
        (matrix,) = read_transform(folder / "affine.mat")
        assert isinstance(matrix, np.ndarray)
        for names, one in ((forth, matrix), (back, np.linalg.inv(matrix))):
            path = own.transform(*names, ".txt")
            with completed(path) as partial:
                write_affine(partial, one)
            yield path
    write_json(own.transform(*back, ".json"), _transform_record(own, record, *back))


def _forward(own: _Names, kind: str) -> Path:
    ending = ".nii.gz" if kind == "deformable" else ".txt"
    return own.transform(own.job.moving, own.job.fixed, ending)


def _transform_record(
    own: _Names, record: dict[str, Any], source: str, target: str
) -> dict[str, Any]:
    """The sidecar of a transform: where it comes from, and how well it fits."""
    job, pair, metrics = own.job, own.pair, record["metrics"]
    kind = record["command"]["transform"]
    onto = pair.fixed if target == job.fixed else pair.moving
    text = f"Brings images of the space {source} onto the space {target}; ITK's form, {kind}."
    values = _sidecar(text, [pair.moving, pair.fixed], job, reference=onto)
    values |= {"Transform": kind, "Lambda": record["lam"]}
    values |= {
        name: metrics.get(key)
        for name, key in (
            ("SimilarityLinear", "similarity_affine"),
            ("Similarity", "similarity"),
            ("EstimatedDiceLinear", "estimated_dice_affine"),
            ("EstimatedDice", "estimated_dice"),
            ("EstimatedDiceLow", "estimated_dice_low"),
            ("EstimatedDiceHigh", "estimated_dice_high"),
        )
    }
    verdict = record["verdict"]
    return values | {"Verdict": verdict["state"], "VerdictReasons": verdict["reasons"]}


def _sidecar(
    text: str, sources: list[Path], job: Job, *, reference: Path, **more: Any
) -> dict[str, Any]:
    return {
        "Description": text,
        "Sources": [job.uri(path) for path in sources],
        "SpatialReference": job.uri(reference),
        "GeneratedBy": generated_by(),
        **more,
    }


def _placed(source: Path, target: Path, sidecar: dict[str, Any] | None) -> Path:
    """Put a file of the pair's folder under its BIDS name, with its sidecar."""
    with completed(target) as partial:
        try:
            os.link(source, partial)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, partial)
    if sidecar is not None:
        write_json(_beside(target), sidecar)
    return target


def _beside(path: Path) -> Path:
    """The sidecar of an image."""
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def _former(marker: Path) -> dict[str, Any]:
    """The sidecar of an earlier publication; empty where there is none that can be read."""
    try:
        values = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
