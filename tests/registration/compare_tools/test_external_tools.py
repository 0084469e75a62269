"""`jaxreg compare`: the table, engines that are missing, and those that are there."""

import importlib
import json

import numpy as np
import pytest
from registration_data import motion, write_subject

from jaxreg.cli import main
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import read_labels, write
from jaxreg.registration.compare_tools import compare, external_tools
from jaxreg.registration.compare_tools.compare import Row, table

DIRECT = ["--optimize-only", "--init=none", "--spacing=8", "--steps=5"]


@pytest.fixture(scope="module")
def argv(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    fixed, moving = write_subject(folder, 1, "T1w"), write_subject(folder, 2, "T2w")
    labels = [f"--fixed-labels={fixed['labels']}", f"--moving-labels={moving['labels']}"]
    return ["compare", str(fixed["image"]), str(moving["image"]), *DIRECT, *labels]


def test_engines_that_are_not_installed_are_named_and_skipped(argv, monkeypatch, capsys):
    for name in ("ants", "greedy", "fireants", "syntx"):
        monkeypatch.setitem(external_tools.DISTRIBUTIONS, name, f"absent-{name}")
    assert main([*argv, "--with=ants,greedy,fireants,syntx"]) == 0
    out = capsys.readouterr().out
    assert "ants: not installed (absent-ants; extra `compare`), skipped" in out
    assert (
        "fireants: not installed (absent-fireants; pip install --no-deps fireants), skipped" in out
    )
    assert "syntx: not installed (absent-syntx; pip install --no-deps syntx), skipped" in out
    assert "greedy: not installed" in out
    rows = {line.split("  ")[0].strip(): line.split() for line in out.splitlines()}
    assert float(rows["jaxreg"][2]) > float(rows["affine alone"][3])  # similarity


def test_dice_is_that_of_register(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "missing", lambda name: external_tools.DISTRIBUTIONS[name])
    longer = [*(flag for flag in argv if flag != "--steps=5"), "--steps=40", "--lam=0.1"]
    assert main([*longer, "--with=ants"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0]: line.rsplit(maxsplit=5) for line in lines}
    assert main(["register", *longer[1:], f"--out={tmp_path / 'run'}"]) == 0
    found = json.loads((tmp_path / "run" / "provenance.json").read_text())["metrics"]
    dice = {name: float(rows[name][1]) for name in ("affine alone", "jaxreg")}
    assert dice["affine alone"] == pytest.approx(found["dice_affine"], abs=6e-5)
    assert dice["jaxreg"] == pytest.approx(found["dice"], abs=6e-5)
    assert dice["jaxreg"] != dice["affine alone"]


def test_label_maps_without_a_common_label_have_no_dice(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "missing", lambda name: external_tools.DISTRIBUTIONS[name])
    labels = read_labels(argv[-1].split("=")[1])
    other = np.where(labels.array > 0, labels.array + 5000, 0)
    write(tmp_path / "other.nii.gz", Volume(other.astype(np.int16), labels.affine))
    flags = [*argv[:-1], f"--moving-labels={tmp_path / 'other.nii.gz'}", "--with=ants"]
    assert main(flags) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows if row[0] == "jaxreg"] == ["nan"]


def test_an_engine_that_fails_is_a_row_that_says_so(argv, monkeypatch, capsys):
    monkeypatch.setattr(compare, "missing", lambda name: None)
    monkeypatch.setitem(compare.ENGINES, "absent", lambda folder: None)
    assert main([*argv, "--with=absent"]) == 0
    assert "failed: KeyError: 'absent'" in capsys.readouterr().out


def test_the_seconds_of_an_engine_begin_after_its_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_engine.py").write_text("import time\ntime.sleep(1)\n")

    def engine(folder):
        importlib.import_module("slow_engine")
        return np.zeros((2, 2, 2, 3))

    monkeypatch.setitem(external_tools.ENGINES, "slow", engine)
    monkeypatch.setitem(external_tools.MODULES, "slow", ("slow_engine",))
    external_tools.main("slow", tmp_path)
    assert json.loads((tmp_path / "used.json").read_text())["seconds"] < 1
    assert external_tools.MODULES.keys() == external_tools.ENGINES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(external_tools.ENGINES))
def test_an_engine_undoes_a_shift(tmp_path, name, capsys):
    lacking = external_tools.missing(name)
    if lacking:
        pytest.skip(f"not installed: {lacking}")
    fixed = write_subject(tmp_path, 1, "T1w")
    moving = write_subject(tmp_path, 1, "T2w", motion=motion(0, (9, -6, 0)))
    labels = [f"--fixed-labels={fixed['labels']}", f"--moving-labels={moving['labels']}"]
    # 4 mm: elastix's splines of 14 mm do not suit voxels of 8 mm
    flags = ["--optimize-only", "--init=none", "--spacing=4", "--steps=5", f"--with={name}"]
    assert main(["compare", str(fixed["image"]), str(moving["image"]), *flags, *labels]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [x for x in lines if x.startswith(f"{name}  ")]
    (before,) = [x.split() for x in lines if x.startswith("affine alone")]
    assert "failed" not in line, line
    _, dice, similarity, folds, seconds, gigabytes = line.split()
    assert float(before[2]) + 0.1 < float(dice) < 1
    assert float(before[3]) < float(similarity) < 1
    assert float(folds) < 5 and float(seconds) > 0 and float(gigabytes) > 0.05


def test_the_table_is_aligned():
    nan = float("nan")
    failed = Row("x", nan, nan, nan, nan, nan, "failed: y")
    rows = [Row("affine alone", 0.5, 0.4, 0.0, 0, 0, ""), failed]
    head, first, second = table(rows).splitlines()
    assert len(head) == len(first) and second.endswith("failed: y")
