"""The pairs of a BIDS data set registered as `--pairs` does it, and published as derivatives."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxreg.configuration.bids import BidsSelection
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.image_choice import Choice, write_choices
from jaxreg.errors import InputError
from jaxreg.io.tables import write_table
from jaxreg.progress import SILENT, Progress
from jaxreg.registration.batch.batch import Batch, register_pairs
from jaxreg.registration.batch.side_by_side import AT_ONCE
from jaxreg.registration.bids.dataset import WORK, check_place, describe
from jaxreg.registration.bids.derivatives import Job, publish
from jaxreg.registration.bids.pairs import BidsPair, Found, find_pairs
from jaxreg.registration.bids.template import SharedTemplate, shared_template

LINEAR_OUTPUTS = "moved,affine,masks,report"
DEFORMABLE_OUTPUTS = "moved,warp,inverse_warp,masks,report"


class BidsBatch(NamedTuple):
    """What became of a data set: `batch` of the pairs, `left_out` of who has none, with reasons."""

    out: Path
    batch: Batch
    left_out: dict[str, str]
    choices: list[Choice]

    def as_values(self) -> dict[str, Any]:
        """The same as JSON values."""
        choices = [choice._asdict() for choice in self.choices]
        rest = {"left_out": self.left_out, "choices": choices}
        return {"out": str(self.out), **self.batch._asdict(), **rest}


def register_dataset(
    root: Path,
    out: Path,
    selection: BidsSelection,
    config: RegisterConfig,
    *,
    overwrite: bool = False,
    retry: bool = False,
    cluster: str | None = None,
    at_once: int = AT_ONCE,
    say: Callable[[str], None] = print,
    progress: Progress = SILENT,
) -> BidsBatch:
    """Register the pairs of a data set that are not done yet, and write BIDS derivatives.

    The pairs are registered below `out`/work as `register_pairs` does it, with its results.tsv. A
    pair is published below `out` as soon as it is finished.

    Raises:
        InputError: no pair, a folder that holds other files, or what `register_pairs` refuses.
    """
    check_place(root, out)
    if config.outputs is not None:
        raise InputError("--outputs: not read here; the derivatives are always the same files.")
    direction = f"from-{selection.moving_suffix}_to-{selection.fixed_space}"
    folder = out.absolute() / WORK / direction
    template = shared_template(selection, folder)
    every, asked = find_pairs(root, selection, template=template and template.image)
    for line in (*map(str, asked.choices), *(f"{n}: {r}" for n, r in asked.left_out.items())):
        say(line)
    describe(root, out)
    table = _write_tables(folder, every, template)
    if template is not None and template.atlas is not None:
        write_table(out / template.atlas.table, ("index", "name"), template.atlas.rows)
    job = Job(root, out, selection.moving_suffix, selection.fixed_space, template)
    linear = config.transform != "deformable"
    config = dataclasses.replace(config, outputs=LINEAR_OUTPUTS if linear else DEFORMABLE_OUTPUTS)
    pairs, new = {pair.name: pair for pair in asked.pairs}, []

    def publish_one(name: str) -> None:
        if publish(job, pairs[name], folder / name):
            new.append(name)

    for name in pairs:  # what an earlier run finished and did not publish
        if (folder / name / "provenance.json").is_file():
            publish_one(name)
    batch = register_pairs(
        table,
        folder,
        config,
        rows=_rows(every.pairs, asked.pairs),
        overwrite=overwrite,
        retry=retry,
        cluster=cluster,
        at_once=at_once,
        say=say,
        progress=progress,
        finished=publish_one,
    )
    say(f"{len(batch.done)} of {len(asked.pairs)} pairs are in {out}, {len(new)} of them new")
    return BidsBatch(out, batch, asked.left_out, asked.choices)


def _rows(pairs: Sequence[BidsPair], asked: Sequence[BidsPair]) -> str | None:
    """The rows of the table that are asked for, as --rows; None for all."""
    if len(asked) == len(pairs):
        return None
    numbers = {pair.name: number for number, pair in enumerate(pairs, start=1)}
    return ",".join(str(numbers[pair.name]) for pair in asked)


def _write_tables(folder: Path, found: Found, template: SharedTemplate | None) -> Path:
    """Write the tables of the pairs, of who is left out and of the choices; gives the first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: no folder for the results ({error.strerror}).") from error
    mask = None if template is None else template.mask
    if template is not None:
        template.write()
    fixed_mask = "n/a" if mask is None else str(mask.absolute())
    pairs = ((p.name, str(p.fixed), str(p.moving), fixed_mask) for p in found.pairs)
    write_table(folder / "pairs.tsv", ("name", "fixed", "moving", "fixed_mask"), pairs)
    write_table(folder / "left_out.tsv", ("name", "reason"), found.left_out.items())
    write_choices(folder / "choices.tsv", found.choices)
    return folder / "pairs.tsv"
