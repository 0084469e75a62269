"""Checkpoints: whole or not at all, the newest whole one is found, nothing in them is code."""

import ast
import builtins
import errno
import gc
import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import jaxreg
from jaxreg.errors import InputError
from jaxreg.io import checksums
from jaxreg.models.checkpoint import (
    Checkpoints,
    Meta,
    open_run,
    parameters_sha256,
)

PARAMS = {"w": jnp.arange(6.0).reshape(2, 3), "b": {"c": -jnp.zeros(4)}}
OPTIMIZER = {"count": jnp.int32(3)}


def meta(step):
    return Meta("ae", {"a": 1.5, "b": None}, {"seed": 0}, {"next_index": step}, step)


@pytest.fixture
def run(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.require_writable()
    for step in (1, 2, 10):
        params = {"w": PARAMS["w"] + step, "b": PARAMS["b"]}
        checkpoints.save(meta(step), params, {"count": jnp.int32(step)})
    return checkpoints


def flip(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def data_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_what_was_saved_comes_back_bitwise(run):
    newest = run.newest()
    assert newest == meta(10)._replace(sealed=1)
    params = run.params(10, PARAMS)
    wanted = {"w": np.asarray(PARAMS["w"]) + 10, "b": PARAMS["b"]}
    assert parameters_sha256(params) == parameters_sha256(wanted)
    assert np.signbit(params["b"]["c"]).all()  # −0 too
    assert run.optimizer(10, {"count": jnp.int32(0)})["count"] == 10


def test_the_newest_three_stay_and_10_comes_after_9(run):
    for step in (9, 11):
        run.save(meta(step), PARAMS, OPTIMIZER)
    assert run.steps() == [9, 10, 11]
    assert [p.name for p in run.folder.iterdir() if not p.name.isdigit()] == []


def test_a_damaged_newest_one_is_passed_and_nothing_is_deleted(run, capsys):
    flip(data_file(run.folder / "10"))
    before = sorted(run.folder.rglob("*"))
    newest = run.newest()
    assert newest is not None and newest.step == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "10: damaged checkpoint (" in err and "step 2 is used" in err
    assert sorted(run.folder.rglob("*")) == before


def test_damaged_ones_are_set_aside_and_their_step_can_be_saved_again(run, capsys):
    for _ in range(2):
        flip(data_file(run.folder / "10"))
        run.set_aside_after(2)
        run.save(meta(10), PARAMS, OPTIMIZER)
    assert run.steps() == [1, 2, 10]
    aside = {"10.damaged-1", "10.damaged-2"}
    assert aside <= {p.name for p in run.folder.iterdir()}
    assert run.newest() == meta(10)._replace(sealed=1)
    assert capsys.readouterr().err.count("kept as 10.damaged-") == 2


@pytest.mark.parametrize("damage", ["sums", "folder", "meta", "empty"])
def test_any_missing_part_counts_as_damage(run, damage):
    newest = run.folder / "10"
    if damage == "sums":
        (newest / checksums.NAME).unlink()
    elif damage == "folder":
        shutil.rmtree(newest / "params")
    elif damage == "meta":
        shutil.rmtree(newest / "meta")
    else:
        shutil.rmtree(newest)
        newest.mkdir()
    found = run.newest()
    assert found is not None and found.step == 2


def test_with_every_checkpoint_damaged_the_run_does_not_start_anew(run):
    for step in run.steps():
        flip(data_file(run.folder / str(step)))
    with pytest.raises(InputError, match="10: damaged checkpoint .* no older one is whole"):
        run.newest()
    assert run.steps() == [1, 2, 10]


def test_checkpoints_of_before_the_sums_are_still_read(run):
    checkpoint = run.folder / "20"
    old = meta(20)._asdict()
    del old["sealed"]
    ocp.save_checkpointables(
        str(checkpoint), {"params": PARAMS, "optimizer": OPTIMIZER, "meta": old}
    )
    newest = run.newest()
    assert newest == meta(20)
    assert parameters_sha256(run.params(20, PARAMS)) == parameters_sha256(PARAMS)


@pytest.mark.parametrize("part", ["save", "seal", "rename"])
def test_a_full_disk_is_one_line_and_the_older_ones_stay(run, part, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_, **__):
        raise full

    if part == "save":
        monkeypatch.setattr(ocp, "save_checkpointables", fails)
    elif part == "seal":
        monkeypatch.setattr(checksums, "seal", fails)
    else:
        monkeypatch.setattr(Path, "rename", fails)
    before = sorted(run.folder.rglob("*"))
    with pytest.raises(InputError, match="11: .*No space left on device.* step 10 is kept"):
        run.save(meta(11), PARAMS, OPTIMIZER)
    assert sorted(run.folder.rglob("*")) == before
    assert run.newest() == meta(10)._replace(sealed=1)


def test_what_a_killed_save_leaves_is_no_checkpoint_and_goes_with_the_next(run):
    left = run.folder / "partial.orbax-checkpoint-tmp-7"
    shutil.copytree(run.folder / "10", left)
    assert run.steps() == [1, 2, 10]
    run.save(meta(11), PARAMS, OPTIMIZER)
    assert not left.exists()


def test_names_that_are_no_step_are_not_taken_for_one(run):
    for name in ("12.damaged-1", "٣", "-4", "1e3", "partial"):
        (run.folder / name).mkdir()
    (run.folder / "13").write_text("a file")
    assert run.steps() == [1, 2, 10]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "like",
    [
        {"w": jnp.zeros((3, 2)), "b": PARAMS["b"]},
        {"w": PARAMS["w"]},
        {**PARAMS, "c": PARAMS["b"]},
        {"w": PARAMS["w"], "b": {"nested": PARAMS["b"]}},
    ],
)
def test_other_parameters_than_those_stored_are_refused_in_plain_words(run, like):
    with pytest.raises(InputError, match=r"/10: .* \(its arrays are not those of its config"):
        run.params(10, like)
    gc.collect()  # Orbax leaves coroutines behind where it fails, and Python says so here


def test_reading_a_checkpoint_unpickles_nothing(run, monkeypatch):
    class Refusing(pickle.Unpickler):
        def __init__(self, *_, **__):
            raise AssertionError("unpickled")

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", Refusing)
    checkpoints, found = open_run(run.folder.parent, "ae")
    checkpoints.params(found.step, PARAMS)
    checkpoints.optimizer(found.step, {"count": jnp.int32(0)})


def test_no_module_can_run_code_from_a_file():
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
    for path in Path(jaxreg.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {n.split(".")[0] for n in names} & forbidden, path
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert called not in {"exec", "eval", "__import__"}, path
                assert not any(k.arg == "allow_pickle" for k in node.keywords), path


def test_numpy_refuses_pickles_by_default():
    buffer = io.BytesIO()
    np.save(buffer, np.array([builtins.object()]), allow_pickle=True)
    buffer.seek(0)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(buffer)


def test_a_registration_with_a_released_network_does_not_load_orbax():
    code = (
        "import sys\nimport jaxreg.registration.finished\n"
        "from jaxreg.models.release import SHIPPED, load_model\nload_model(SHIPPED)\n"
        "print('orbax' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "False"
