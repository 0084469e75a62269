"""The demonstration cohort: the template's subjects where it is installed, else phantoms."""

import pytest

from jaxreg.data.cohort import read_cohort
from jaxreg.data.mni152 import find_mni152
from jaxreg.data.synthetic import demo
from jaxreg.data.synthetic.phantom import LABELS
from jaxreg.data.volumes import Volumes


def cohort_of(tmp_path, **subjects):
    folder = tmp_path / "cohort"
    demo.write_demonstration_cohort(folder, spacing_mm=8.0, subjects=subjects)
    return read_cohort(folder)


def test_without_the_template_the_people_are_phantoms(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_mni152", lambda: None)
    cohort = cohort_of(tmp_path, train=1, test=1)
    assert "the subjects are phantoms" in capsys.readouterr().out
    assert cohort.structures == LABELS
    assert cohort.participants == {"sub-01": "train", "sub-02": "test"}
    volumes = Volumes(cohort, [("sub-01", "T1w"), ("sub-02", "T2w")])
    assert volumes.native_shape == (24, 24, 24) and volumes.native_spacing_mm == (8.0, 8.0, 8.0)


@pytest.mark.skipif(find_mni152() is None, reason="the template mni152 is not installed")
def test_with_the_template_the_people_are_made_from_it(tmp_path, capsys):
    cohort = cohort_of(tmp_path, test=1)
    assert "ICBM152" in capsys.readouterr().out
    assert cohort.structures and not set(cohort.structures.values()) & set(LABELS.values())
