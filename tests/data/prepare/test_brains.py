"""Brains and labels that no file gives: found by what is given as a function, and said to be so.

The heads are ellipsoids of 120 around a brain of known size in air with noise.
"""

import csv
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxreg.configuration.preparation import PrepareConfig
from jaxreg.data.cohort import automatic_line, read_cohort
from jaxreg.data.prepare.brains import Brains, brain_of
from jaxreg.data.prepare.prepare import prepare
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io import images

SHAPE, SPACING_MM = (40, 44, 38), 5.0
AFFINE = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
AFFINE[:3, 3] = [-98, -109, -92]
MIDDLE = (np.array(SHAPE) - 1) / 2


class Answer(NamedTuple):
    """What a finder answers."""

    mask: Any
    labels: Any
    doubt: str | None = None


def ellipsoid(radii):
    at = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    return ((SPACING_MM * (at - MIDDLE) / radii) ** 2).sum(axis=-1) < 1


HEAD, BRAIN = ellipsoid((92, 104, 88)), ellipsoid((64, 80, 60))


def head(seed, *, cut=False):
    """A head in noisy air (or only its brain in zeros), no two voxels alike."""
    rng = np.random.default_rng(seed)
    values = np.where(BRAIN, 200, np.where(HEAD, 120, 10)) + rng.normal(0, 4, SHAPE)
    values = np.where(BRAIN, values, 0) if cut else np.abs(values)
    return Volume(values.astype(np.float32), AFFINE)


def find(image):
    """The true brain, its left half 2 and its right half 41; nothing in a dark image."""
    if image.array.max() < 50:
        raise InputError("expected a brain, found 0 of 31 structures in the image.")
    right = np.arange(SHAPE[0])[:, None, None] > MIDDLE[0]
    return Answer(BRAIN, np.where(BRAIN, np.where(right, 41, 2), 0).astype(np.uint8))


def test_a_doubtful_brain_is_named(tmp_path):
    said = []
    doubting = Brains(lambda image: find(image)._replace(doubt="the segmentation is doubtful"))
    brain = brain_of(tmp_path / "t1", head(0), None, doubting, remark=said.append)
    assert brain.origin == "automatic"
    assert said == [f"{tmp_path / 't1'}: the segmentation is doubtful."]


def never_asked(image):
    raise AssertionError("no brain was to be found")


def align(fixed, moving, *, mode, fixed_mask=None, moving_mask=None):
    return np.eye(4)


@pytest.mark.parametrize(
    ("cut", "extract", "origin", "wanted"),
    [
        (False, "auto", "automatic", BRAIN),
        (False, "always", "automatic", BRAIN),
        (True, "always", "automatic", BRAIN),
        (True, "auto", "extracted", BRAIN),
        (True, "never", "extracted", BRAIN),
        (False, "never", "n/a", None),
    ],
)
def test_a_brain_is_found_where_it_has_to_be(tmp_path, cut, extract, origin, wanted):
    asked = find if origin == "automatic" else never_asked
    brain = brain_of(tmp_path / "t1.nii", head(0, cut=cut), None, Brains(asked, extract))
    assert (brain.origin, brain.labels) == (origin, None)
    if wanted is not None:
        np.testing.assert_array_equal(brain.mask, wanted)
    else:
        assert brain.mask.sum() > 0.8 * HEAD.sum()


def test_a_given_mask_stays_and_labels_are_made_beside_it(tmp_path):
    given = ellipsoid((60, 60, 60))
    images.write(tmp_path / "m.nii", Volume(given.astype(np.uint8), AFFINE))
    image = head(0)
    for extract in ("auto", "always"):
        brain = brain_of(tmp_path / "t1", image, tmp_path / "m.nii", Brains(never_asked, extract))
        assert brain.origin == "given" and (brain.mask == given).all()
    brain = brain_of(tmp_path / "t1", image, tmp_path / "m.nii", Brains(find), labels=True)
    assert brain.labels is not None
    assert brain.origin == "given" and set(np.unique(brain.labels.array)) == {0, 2, 41}
    said = []
    dark = Volume(image.array / 100, AFFINE)
    brain = brain_of(
        tmp_path / "t1", dark, tmp_path / "m.nii", Brains(find), labels=True, remark=said.append
    )
    assert brain.labels is None and "no automatic labels" in said[0] and "t1" in said[0]


def test_an_image_without_a_brain_is_refused_with_what_helps(tmp_path):
    with pytest.raises(InputError, match=r"t1\.nii: .*--extract never"):
        brain_of(tmp_path / "t1.nii", Volume(head(0).array / 100, AFFINE), None, Brains(find))


def cohort(tmp_path, **settings):
    """Four heads with T1w and T2w, p0 with a mask, p1 with labels, p2 an extracted T1w."""
    rows = ["participant_id\tT1w\tT2w\tmask\tdseg\tsplit"]
    for n, split in enumerate(("train", "train", "val", "val")):
        images.write(tmp_path / f"t1_{n}.nii.gz", head(n, cut=n == 2))
        images.write(tmp_path / f"t2_{n}.nii.gz", head(n + 10))
        rows.append(
            f"p{n}\tt1_{n}.nii.gz\tt2_{n}.nii.gz\t{'m.nii.gz' if n == 0 else 'n/a'}\t"
            f"{'l.nii.gz' if n == 1 else 'n/a'}\t{split}"
        )
    images.write(tmp_path / "m.nii.gz", Volume(BRAIN.astype(np.uint8), AFFINE))
    images.write(tmp_path / "l.nii.gz", Volume(17 * BRAIN.astype(np.uint8), AFFINE))
    (tmp_path / "subjects.tsv").write_text("\n".join(rows) + "\n")
    config = PrepareConfig(
        layout="table", source=tmp_path / "subjects.tsv", out=tmp_path / "cohort",
        spacing=8.0, jobs=2, **settings,
    )  # fmt: skip
    return config


def test_whole_heads_become_brains_with_labels_and_the_table_says_so(tmp_path):
    config = cohort(tmp_path, labels="auto")
    summary = prepare(config, align, find=find)
    with (config.out / "participants.tsv").open() as file:
        rows = {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert [rows[f"p{n}"]["mask"] for n in range(4)] == [
        "given", "automatic", "extracted", "automatic",
    ]  # fmt: skip
    assert [rows[f"p{n}"]["labels"] for n in range(4)] == [
        "automatic", "given", "automatic", "automatic",
    ]  # fmt: skip
    levels = json.loads((config.out / "participants.json").read_text())["mask"]["Levels"]
    assert {row["mask"] for row in rows.values()} <= set(levels)
    litres = 4 / 3 * np.pi * 64 * 80 * 60 / 1e6
    for n in range(4):
        for domain in ("T1w", "T2w"):  # the T2w shares the brain of the T1w, extracted or not
            stored = images.read(config.out / f"p{n}" / f"p{n}_{domain}.nii.gz")
            got = (stored.array > 0).sum() * 8.0**3 / 1e6
            assert abs(got / litres - 1) < 0.05, (n, domain)
        labels = images.read_labels(config.out / f"p{n}" / f"p{n}_dseg.nii.gz")
        assert set(np.unique(labels.array)) == ({0, 17} if n == 1 else {0, 2, 41})
    lines = summary.lines()
    assert any(
        line.startswith("the brain masks of 2 of 4 subjects are automatic") for line in lines
    )
    assert any(line.startswith("the label maps of 3 of 4 subjects are automatic") for line in lines)
    found = read_cohort(config.out)
    assert found.automatic_labels == {"p0", "p2", "p3"}
    assert "1 of 2 subjects are automatic" in str(automatic_line(found, ["p1", "p2"]))
    assert automatic_line(found, ["p1"]) is None


def test_with_extract_never_no_segmentation_is_asked(tmp_path):
    config = cohort(tmp_path, extract="never")
    prepare(config, align, find=never_asked)
    with (config.out / "participants.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["mask"] for row in rows] == ["given", "n/a", "extracted", "n/a"]
    assert [row["labels"] for row in rows] == ["n/a", "given", "n/a", "n/a"]
    assert not read_cohort(config.out).automatic_labels


def test_a_cohort_of_an_earlier_version_goes_on_with_extract_never(tmp_path):
    config = cohort(tmp_path, extract="never")
    prepare(config, align)
    path = config.out / "prepare.json"
    settings = json.loads(path.read_text())
    for name in ("extract", "segmentation", "entities"):
        del settings[name]
    path.write_text(json.dumps(settings))
    assert not prepare(config, align).failed


@pytest.mark.parametrize(
    "settings", [{"extract": "sometimes"}, {"extract": "never", "segmentation": "nets"}]
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, settings):
    with pytest.raises(InputError, match="--extract"):
        cohort(tmp_path, **settings)
