"""The tables that make a folder of prepared subjects a cohort, and the remarks on its subjects."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxreg.configuration.preparation import PrepareConfig
from jaxreg.data.image_choice import Choice, write_choices
from jaxreg.io.atomic import completed
from jaxreg.io.remarks import grouped
from jaxreg.io.tables import write_table

_COLUMNS = {
    "split": {"Description": "Part of the cohort: train, val or test."},
    "mask": {
        "Description": "Where the brain mask comes from.",
        "Levels": {
            "given": "a file of the source",
            "automatic": "jaxreg's segmentation of the image",
            "extracted": "the image, which is an extracted brain",
            "n/a": "there is none; the whole head counts as brain",
        },
    },
    "labels": {
        "Description": "Where the label map comes from.",
        "Levels": {
            "given": "a file of the source",
            "automatic": "jaxreg's segmentation of the image",
            "n/a": "there is none",
        },
    },
}
"""participants.json: what the columns of participants.tsv mean."""


def write_tables(
    config: PrepareConfig,
    done: dict[str, str],
    records: dict[str, Any],
    names: dict[int, str],
    choices: Sequence[Choice],
) -> None:
    """Write what makes the folder of the subjects that are done a cohort.

    `records` has what is known of each of them, `names` those of the structures that are scored.
    """
    write_description(config.out, f"prepared from {config.layout}")
    if names:
        write_table(config.out / "labels.tsv", ("index", "name"), sorted(names.items()))
    if choices:
        write_choices(config.out / "choices.tsv", choices)
    with completed(config.out / "participants.json") as partial:
        partial.write_text(json.dumps(_COLUMNS, indent=1) + "\n")
    rows = [(name, split, *_origins(records[name])) for name, split in sorted(done.items())]
    header = ("participant_id", "split", "mask", "labels")
    write_table(config.out / "participants.tsv", header, rows)


def write_description(folder: Path, name: str) -> None:
    """Write `dataset_description.json` of a BIDS derivative."""
    description = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    description |= {"GeneratedBy": [{"Name": "jaxreg"}]}
    with completed(folder / "dataset_description.json") as partial:
        partial.write_text(json.dumps(description, indent=1) + "\n")


def _origins(record: dict[str, Any]) -> tuple[str, str]:
    """Where mask and labels come from, of records of older versions too."""
    mask = record.get("mask_origin") or ("given" if record["mask"] else "n/a")
    return mask, record.get("labels_origin") or ("given" if record["labels"] else "n/a")


def remarks_of(records: dict[str, Any]) -> list[str]:
    """What a user should know of the subjects, a sentence each."""
    remarks = grouped(line for record in records.values() for line in record.get("remarks", ()))
    masks, labels = zip(*map(_origins, records.values()), strict=True)
    for what, origins in (("brain masks", masks), ("label maps", labels)):
        if count := origins.count("automatic"):
            remarks.append(
                f"the {what} of {count} of {len(records)} subjects are automatic (jaxreg's "
                "segmentation); participants.tsv says whose."
            )
    unmasked = masks.count("extracted") + masks.count("n/a")
    if unmasked:
        remarks.append(
            f"{unmasked} of {len(records)} subjects have no brain mask: all but the background "
            "counts as brain, the whole head where the images show it."
        )
    for name, record in records.items():
        for domain, image in record["images"].items():
            if image["share_on_grid"] < 0.9:
                share = round(100 * image["share_on_grid"])
                remarks.append(f"{name}: {share} % of the {domain} lie on the cohort's grid.")
    return remarks
