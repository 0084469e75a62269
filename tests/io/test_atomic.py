"""Folders that appear when they are complete, and what lay there before."""

import os

import pytest

from jaxreg.errors import InputError
from jaxreg.io.atomic import completed_folder


@pytest.mark.parametrize("error", [OSError(5, "gone"), KeyboardInterrupt()])
def test_the_earlier_folder_stays_where_its_successor_does_not_take_its_place(
    error, tmp_path, monkeypatch
):
    target = tmp_path / "result"
    target.mkdir()
    (target / "old").touch()
    replace = os.replace

    def breaking(source, destination):
        if str(destination) == str(target) and ".old" not in str(source):
            raise error
        replace(source, destination)

    monkeypatch.setattr(os, "replace", breaking)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), completed_folder(target) as folder:
        (folder / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["result", "old"]


def test_a_new_folder_takes_the_place_of_the_earlier_one(tmp_path):
    target = tmp_path / "result"
    target.mkdir()
    (target / "old").touch()
    with completed_folder(target) as folder:
        (folder / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["result", "new"]
