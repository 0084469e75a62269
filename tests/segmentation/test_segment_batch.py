"""What `segment_files` does over several images, with a segmentation that takes no time."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from jaxreg import cli
from jaxreg.errors import InputError
from jaxreg.io.atomic import InUse, claimed
from jaxreg.io.tables import read_table
from jaxreg.segmentation import batch
from jaxreg.segmentation.files import SegmentedImage


@dataclass
class Found:
    """A segmentation of an image, which holds its volumes alone."""

    image: Path
    doubt = None
    brain_ml = 1000.0

    def provenance(self):
        """The record of the image."""
        return {"image": str(self.image), "networks_sha256": {}}

    def save(self, folder, **how):
        """Write the record and the volumes."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / batch.RECORD).write_text(json.dumps(self.provenance()))
        (folder / batch.VOLUMES).write_text("number\tname\tml\n0\tBrain-Mask\t1000.0\n")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Images a to d; those that are in the dictionary that it returns fail with its errors."""
    errors: dict[str, Exception] = {}

    def segment_scan(path, **how):
        if path.stem in errors:
            raise errors[path.stem]
        return Found(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "segment_scan", segment_scan)
    monkeypatch.setattr(batch, "_sha256_of", lambda networks: {})
    for name in "abcd":
        (tmp_path / f"{name}.nii").touch()
    return errors


def rows():
    return [row["image"] for row in read_table(Path("out/volumes.tsv"), ("image",))]


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (MemoryError("no room\nfor it"), "MemoryError: no room for it", 75),
        (ValueError("shapes"), "ValueError: shapes", 1),
    ],
)
def test_whatever_fails_of_several_images_stops_no_other(place, capsys, error, reason, code):
    place["b"] = error
    argv = ["segment", "a.nii", "b.nii", "c.nii", "--out=out", "--json"]
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["failed"] == {"b.nii": f"b.nii: {reason}"} and [*said["images"]] == [
        "a.nii",
        "c.nii",
    ]
    assert f"warning: b.nii: {reason}" in captured.err
    assert rows() == ["a.nii", "c.nii"]


def test_what_fails_of_a_single_image_is_raised(place):
    place["a"] = ValueError("shapes")
    with pytest.raises(ValueError, match="shapes"):
        batch.segment_files([Path("a.nii")], Path("out"))


def test_the_table_has_all_images_of_the_folder_whichever_run_segmented_them(place, tmp_path):
    for images in (("c.nii", "d.nii"), ("b.nii", "a.nii")):
        assert cli.main(["segment", *images, "--out=out"]) == 0
    assert rows() == ["a.nii", "b.nii", "c.nii", "d.nii"]
    (tmp_path / "out" / ".left").mkdir()  # as a killed process leaves it
    (tmp_path / "out" / ".left" / batch.RECORD).write_text("{}")
    assert cli.main(["segment", "a.nii", "d.nii", "--out=out", "--overwrite"]) == 0
    assert rows() == ["a.nii", "b.nii", "c.nii", "d.nii"]


def test_a_table_of_several_images_does_not_replace_the_volumes_of_a_single_one(place, capsys):
    assert cli.main(["segment", "a.nii", "--out=out"]) == 0
    own = Path("out/volumes.tsv").read_text()
    assert cli.main(["segment", "b.nii", "c.nii", "--out=out"]) == 2
    assert "out: holds the segmentation of one image, whose volumes.tsv" in capsys.readouterr().err
    assert Path("out/volumes.tsv").read_text() == own and not Path("out/b").exists()
    assert cli.main(["segment", "b.nii", "c.nii", "--out=out", "--overwrite"]) == 0
    assert rows() == ["b.nii", "c.nii"]


def test_the_table_is_written_by_one_run_at_a_time(place, monkeypatch):
    Path("out").mkdir()
    monkeypatch.setattr(batch, "_SECONDS_OF_PATIENCE", 0.1)
    with claimed(Path("out/volumes.tsv")), pytest.raises(InUse):
        batch.segment_files([Path("a.nii"), Path("b.nii")], Path("out"))


def test_python_is_told_of_its_arguments(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / batch.RECORD).touch()
    found = SegmentedImage(*[None] * len(SegmentedImage._fields))  # pyright: ignore
    with pytest.raises(InputError) as caught:
        found.save(tmp_path / "run")
    assert str(caught.value).endswith("give overwrite, or another folder.")
