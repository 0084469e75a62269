"""`jaxreg register --pairs`: many pairs, resumable, none fatal; on two workers, one killed.

Oracles: `jaxreg register` of a pair alone, and one process for what several do.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import distributed
import jax
import killing
import numpy as np
import pytest
from registration_data import same_but_for_timings, write_subject

from jaxreg.cli import main
from jaxreg.errors import InputError
from jaxreg.io.atomic import claimed, remove_leftovers
from jaxreg.io.images import read_labels
from jaxreg.io.tables import read_table
from jaxreg.registration.batch import batch
from jaxreg.registration.batch import dask as cluster
from jaxreg.registration.batch.pairs import read_pairs
from jaxreg.registration.batch.results import COLUMNS, NUMBERS

DIRECT = ("--optimize-only", "--spacing=8", "--steps=2", "--init=com")
HEAD = "name\tfixed\tmoving\tfixed_labels\tmoving_labels"
PEOPLE = 3
PASSING = ("results.tsv", "index.html")
"""What every run of a table writes again."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with T1w, T2w and their labels of three phantoms."""
    folder = tmp_path_factory.mktemp("subjects")
    for index in range(PEOPLE):
        for domain in ("T1w", "T2w"):
            write_subject(folder, index, domain)
    return folder


def row(fixed, moving, name="", labels=True):
    """A line of the table."""
    f, m = f"sub-{fixed:02d}_T1w", f"sub-{moving:02d}_T2w"
    extra = (f"{f}_labels.nii.gz", f"{m}_labels.nii.gz") if labels else ("n/a", "")
    return "\t".join([name, f"{f}.nii.gz", f"{m}.nii.gz", *extra])


def table(folder, *rows, name="pairs.tsv"):
    path = folder / name
    path.write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")
    return path


def register(pairs, out, *flags):
    return main(["register", f"--pairs={pairs}", f"--out={out}", *DIRECT, *map(str, flags)])


def results(out):
    return {r["name"]: r for r in read_table(out / "results.tsv", COLUMNS)}


def times(out):
    """When each folder and file was written, by name."""
    return {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name not in PASSING}


@pytest.fixture(scope="module")
def cohort(images, tmp_path_factory):
    """(table, out) of three pairs that are done and one whose moving image is not there."""
    rows = [row(0, 1), row(1, 2, "second"), row(2, 0, "no labels", labels=False)]
    pairs = table(images, *rows, "lost\tsub-00_T1w.nii.gz\tnowhere.nii.gz\t\t")
    out = tmp_path_factory.mktemp("many") / "out"
    assert register(pairs, out) == 1
    return pairs, out


def test_each_pair_is_done_or_recorded_with_its_reason(images, cohort):
    _, out = cohort
    found = results(out)
    assert list(found) == ["sub-00_T1w_sub-01_T2w", "second", "no labels", "lost"]
    assert [r["status"] for r in found.values()] == ["done", "done", "done", "failed"]
    assert found["lost"]["reason"] == f"{images / 'nowhere.nii.gz'}: no such file."
    assert found["lost"]["similarity"] == "n/a" and found["no labels"]["dice"] == "n/a"
    assert float(found["second"]["dice"]) > 0.3 and found["second"]["reason"] == "n/a"
    assert {p.name for p in out.iterdir()} == {*found, "results.tsv", "failures", "index.html"} - {
        "lost"
    }
    assert [p.name for p in (out / "failures").iterdir()] == ["lost.json"]
    assert found["lost"]["kind"] == "input" and found["second"]["kind"] == "n/a"


def test_a_pair_ends_as_a_run_of_its_own_writes_it(images, cohort, tmp_path):
    _, out = cohort
    f, m = images / "sub-01_T1w.nii.gz", images / "sub-02_T2w.nii.gz"
    argv = ["register", str(f), str(m), f"--out={tmp_path / 'one'}", *DIRECT]
    argv += [f"--fixed-labels={str(f)[:-7]}_labels.nii.gz"]
    assert main([*argv, f"--moving-labels={str(m)[:-7]}_labels.nii.gz"]) == 0
    assert same_but_for_timings(out / "second", tmp_path / "one") == 9


def test_dice_is_that_of_the_written_labels(images, cohort):
    _, out = cohort
    fixed = read_labels(images / "sub-01_T1w_labels.nii.gz").array
    moving = read_labels(images / "sub-02_T2w_labels.nii.gz").array
    moved = read_labels(out / "second" / "moved_labels.nii.gz").array
    both = [label for label in np.intersect1d(fixed, moving) if label]
    overlap = [
        2 * ((fixed == b) & (moved == b)).sum() / ((fixed == b).sum() + (moved == b).sum())
        for b in both
    ]
    assert float(results(out)["second"]["dice"]) == pytest.approx(np.mean(overlap), rel=1e-5)
    assert float(results(out)["second"]["dice_labels"]) == len(both)


def test_the_table_has_every_number_of_a_run(cohort):
    _, out = cohort
    pair = read_pairs(cohort[0])[0]
    record = json.loads((out / pair.name / "provenance.json").read_text())
    row = results(out)[pair.name]
    assert set(record["metrics"]) == set(NUMBERS)
    assert float(row["similarity"]) == pytest.approx(record["metrics"]["similarity"], 1e-5)
    assert row["verdict"] == record["verdict"]["state"] != "green"
    assert row["verdict_reasons"] == "; ".join(record["verdict"]["reasons"])
    assert int(row["warnings"]) == len(record["warnings"])
    assert row["warning_texts"] == ("; ".join(record["warnings"]) or "n/a")
    timings = json.loads((out / pair.name / "timings.json").read_text())
    assert float(row["seconds"]) == pytest.approx(sum(timings["seconds"].values()), abs=0.1)
    assert float(row["peak_gigabytes"]) == pytest.approx(timings["peak_gigabytes"], 1e-3)


def test_the_same_command_again_tries_nothing_whose_input_is_the_same(cohort, capsys):
    pairs, out = cohort
    before, text = times(out), (out / "results.tsv").read_bytes()
    assert register(pairs, out) == 1
    assert times(out) == before and (out / "results.tsv").read_bytes() == text
    said = capsys.readouterr()
    assert said.out.startswith("4 pairs, 3 of them done already, 1 failed by an input")
    assert "\nwarning: 3 of 4 pairs done, 1 failed" in said.err
    assert register(pairs, out, "--quiet") == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("warning: 3 of 4 pairs done, 1 failed")


def test_retry_tries_only_what_failed(cohort, capsys):
    pairs, out = cohort
    before, text = times(out / "second"), (out / "results.tsv").read_bytes()
    assert register(pairs, out, "--retry") == 1
    assert times(out / "second") == before and (out / "results.tsv").read_bytes() == text
    said = capsys.readouterr()
    assert said.out == "4 pairs, 3 of them done already\n"
    assert "\nwarning: 1/1 lost: failed (input): " in said.err
    assert "\nwarning: 3 of 4 pairs done, 1 failed" in said.err


def test_quiet_says_what_failed_on_standard_error_and_nothing_else(cohort, capsys):
    pairs, out = cohort
    assert register(pairs, out, "--retry", "--quiet") == 1
    said = capsys.readouterr()
    failed, ending = said.err.splitlines()
    assert failed.startswith("warning: 1/1 lost: failed (input): ") and "no such file" in failed
    assert ending.startswith("warning: 3 of 4 pairs done, 1 failed") and said.out == ""


def test_json_is_one_object_and_progress_goes_to_standard_error(cohort, capsys):
    pairs, out = cohort
    assert register(pairs, out, "--json", "--retry") == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["table"] == str(out / "results.tsv") and len(found["done"]) == 3
    assert list(found["failed"]) == ["lost"] and "no such file" in found["failed"]["lost"]
    assert found["kinds"] == {"lost": "input"} and found["elsewhere"] == []
    lines = captured.err.splitlines()
    assert any(line.startswith("register: 0 of 1 pairs in 00:00") for line in lines)
    assert "3 of 4 pairs done, 1 failed" in lines[-1]


def test_other_settings_or_inputs_are_refused_and_replaced_on_demand(images, tmp_path, capsys):
    image = images / "sub-00_T1w.nii.gz"
    pairs, out = table(images, row(0, 1, "a"), name="again.tsv"), tmp_path / "out"
    assert register(pairs, out) == 0
    before = times(out)
    assert main(["register", f"--pairs={pairs}", f"--out={out}", *DIRECT, "--lam=0.5"]) == 2
    assert f"{out / 'a'}: holds a result of other settings" in capsys.readouterr().err
    bytes_before = image.read_bytes()
    try:
        image.write_bytes((images / "sub-02_T1w.nii.gz").read_bytes())
        assert register(pairs, out) == 2
        assert "holds a result of other input files" in capsys.readouterr().err
    finally:
        image.write_bytes(bytes_before)
    assert times(out) == before
    assert register(pairs, out, "--lam=0.5", "--overwrite") == 0
    assert results(out)["a"]["lam"] == "0.5"
    after = times(out)
    assert register(pairs, out, "--lam=0.5", "--overwrite") == 0  # what is the same stays
    assert times(out) == after


def test_any_exception_fails_its_pair_alone(images, tmp_path, monkeypatch):
    true = batch.register_files

    def fails(fixed, moving, folder, config, **more):
        if folder.name == "b":
            raise MemoryError("no room\nat all")
        return true(fixed, moving, folder, config, **more)

    monkeypatch.setattr(batch, "register_files", fails)
    pairs = table(images, row(0, 1, "a"), row(1, 2, "b"), row(2, 0, "c"), name="three.tsv")
    assert register(pairs, tmp_path) == 75  # memory may be there another time
    found = results(tmp_path)
    assert found["b"]["kind"] == "environment"
    assert [found[name]["status"] for name in "abc"] == ["done", "failed", "done"]
    assert found["b"]["reason"] == "MemoryError: no room at all"
    monkeypatch.undo()
    assert register(pairs, tmp_path) == 0
    assert [r["status"] for r in results(tmp_path).values()] == ["done"] * 3


def test_one_compilation_serves_all_pairs_of_a_shape(images, tmp_path, caplog):
    first = table(images, row(0, 1, "a"), name="first.tsv")
    assert register(first, tmp_path, "--steps=3") == 0  # compiles what the shape needs
    pairs = table(images, row(0, 1, "a"), row(0, 2, "b"), row(0, 0, "c"), name="shape.tsv")
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        assert register(pairs, tmp_path, "--steps=3") == 0
    assert not [r.message for r in caplog.records if "Finished XLA compilation" in r.message]


def test_leftovers_of_killed_processes_are_cleaned_and_no_others(tmp_path):
    for name in (".77-a", ".77.old-a", ".78-b", ".77-a.old", "77-a", ".x-a", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / ".79-results.tsv").write_text("x")
    remove_leftovers(tmp_path, {"a", "results.tsv"})
    assert {p.name for p in tmp_path.iterdir()} == {".78-b", ".77-a.old", "77-a", ".x-a", "a"}
    (tmp_path / "a" / "file").unlink()
    (tmp_path / "a").rename(tmp_path / ".80.old-a")  # killed before its successor was there
    (tmp_path / ".80.old-a" / "file").write_text("earlier")
    (tmp_path / ".80-a").mkdir()
    remove_leftovers(tmp_path, {"a"})
    assert (tmp_path / "a" / "file").read_text() == "earlier"
    assert not {p.name for p in tmp_path.iterdir()} & {".80.old-a", ".80-a"}


def test_a_pair_of_another_run_is_left_to_it_and_the_table_is_no_output(images, tmp_path, capsys):
    pairs, out = table(images, row(0, 1, "a"), name="claim.tsv"), tmp_path / "out"
    out.mkdir()
    with claimed(out / "a"):
        assert register(pairs, out, "--json") == 75  # not all are done; the same command may
    captured = capsys.readouterr()
    assert json.loads(captured.out)["elsewhere"] == ["a"]
    assert "1/1 a: left to another run, which is registering this pair\n" in captured.err
    assert not any((out / "failures").iterdir()) and not (out / "a").exists()
    own = table(tmp_path, row(0, 1, "a"), name="results.tsv")
    before = own.read_bytes()
    assert register(own, tmp_path) == 2
    assert "give another --out" in capsys.readouterr().err and own.read_bytes() == before


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([], "at least one pair"),
        (["\tf.nii\t\t\t"], "expected a file in column moving, line 2"),
        (["../up\tf.nii\tm.nii\t\t"], "plain name"),
        (["a/b\tf.nii\tm.nii\t\t"], "plain name"),
        ([".hidden\tf.nii\tm.nii\t\t"], "plain name"),
        (["A\tf.nii\tm.nii\t\t", "a\tf.nii\tm.nii\t\t"], "each name once"),
        (["Results.TSV\tf.nii\tm.nii\t\t"], "each name once"),
        (["failures\tf.nii\tm.nii\t\t"], "each name once"),
        (["Index.html\tf.nii\tm.nii\t\t"], "each name once"),
        (["a\tf.nii\tm.nii\t\t\tmore"], "more values than columns"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, rows, wanted):
    with pytest.raises(InputError, match=wanted):
        read_pairs(table(tmp_path, *rows))


def test_names_are_made_of_the_files_and_unique(tmp_path):
    rows = [
        "\ta/x é.nii.gz\t../y.mgz\t\t",
        "\tb/x é.nii.gz\ty.mgz\tn/a\tl.nii",
        "x___y-2\tf\tm\t\t",
    ]
    pairs = read_pairs(table(tmp_path, *rows))
    assert [p.name for p in pairs] == ["x___y", "x___y-3", "x___y-2"]
    assert pairs[1].files == {
        "fixed": str(tmp_path / "b/x é.nii.gz"),
        "moving": str(tmp_path / "y.mgz"),
        "moving_labels": str(tmp_path / "l.nii"),
    }


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["f.nii", "m.nii", "--pairs=t.tsv"], "--pairs: expected no FIXED"),
        (["f.nii"], "expected FIXED and MOVING, or --pairs"),
        (["f.nii", "m.nii", "--cluster=tcp://h:1"], "--cluster: read only with --pairs"),
        (["f.nii", "m.nii", "--at-once=2"], "--at-once: read only with --pairs"),
        (["--pairs=t.tsv", "--at-once=0"], "--at-once: expected at least 1"),
        (["--pairs=t.tsv", "--at-once=2", "--cluster=tcp://h:1"], "not read with --cluster"),
        (["--pairs=t.tsv", "--fixed-mask=m.nii"], "--fixed-mask: not read with --pairs"),
        (["--pairs=t.tsv"], "t.tsv: no such file"),
    ],
)
def test_flags_that_contradict_are_refused_in_one_line(tmp_path, capsys, flags, wanted):
    out = tmp_path / "out"
    assert main(["register", *flags, f"--out={out}", *DIRECT]) == 2
    error = capsys.readouterr().err
    assert wanted in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    ("address", "code", "wanted"),
    [
        ("nowhere.json", 75, "no such file; the scheduler has not started, or has ended"),
        ("no/folder/s.json", 75, "no such file"),
        ("tcp://127.0.0.1:9", 75, "no scheduler answers"),
        ("127.0.0.1:9", 2, "expected tcp://HOST:PORT"),
        (".", 2, "expected tcp://HOST:PORT"),
    ],
)
def test_a_cluster_that_does_not_answer_is_a_line(
    cohort, capsys, monkeypatch, address, code, wanted
):
    """A scheduler that is gone, or has not begun, is the environment's; a wrong form is not."""
    monkeypatch.setattr("jaxreg.registration.batch.dask._TIMEOUT_S", 1)
    pairs, out = cohort
    assert register(pairs, out, f"--cluster={address}", "--quiet") == code
    error = capsys.readouterr().err
    assert address in error and wanted in error and error.count("\n") == 1


def test_a_cluster_without_workers_ends_with_a_line(cohort, dask, capsys, monkeypatch):
    monkeypatch.setattr("jaxreg.registration.batch.dask._WORKER_TIMEOUT_S", 1)
    pairs, out = cohort
    assert register(pairs, out, f"--cluster={dask[0]}", "--retry") == 75
    said = capsys.readouterr()
    assert "0 workers so far; waiting 1 s at most for the first one" in said.out
    assert f"{dask[0]} had no worker for 1 s" in said.err


def test_without_dask_a_line_says_what_to_install(cohort, capsys, monkeypatch):
    def load(*_):
        raise AssertionError("the model was loaded before")

    monkeypatch.setattr("jaxreg.registration.batch.resume.load_method", load)
    monkeypatch.setitem(sys.modules, "distributed", None)
    pairs, out = cohort
    assert register(pairs, out, "--cluster=tcp://h:1") == 2
    assert "pip install 'jaxreg[cluster]'" in capsys.readouterr().err


@pytest.fixture
def dask(tmp_path):
    """(scheduler file, the scheduler's process, function that starts a worker).

    They find an environment that `runtime.prepare` has not seen.
    """
    prepared = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    environment = {k: v for k, v in killing.environment().items() if k not in prepared}
    file = tmp_path / "scheduler.json"
    module = [sys.executable, "-m"]
    started = []

    def start(*argv):
        with (tmp_path / "dask.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    [*module, *argv, f"--scheduler-file={file}"],
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=tmp_path,
                )
            )
        return started[-1]

    start("distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard")
    assert killing.wait_until(file.is_file, started[0])
    flags = ("--nthreads=1", "--no-nanny", "--no-dashboard", f"--local-directory={tmp_path}")
    yield file, started[0], lambda: start("distributed.cli.dask_worker", *flags)
    for process in reversed(started):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_command_with_a_line(cohort, dask, capsys, monkeypatch):
    pairs, out = cohort
    file, scheduler, _ = dask
    awaited = cluster._await_a_worker

    def dying(*arguments, **more):
        threading.Timer(1, scheduler.kill).start()
        awaited(*arguments, **more)

    monkeypatch.setattr(cluster, "_await_a_worker", dying)
    assert register(pairs, out, f"--cluster={file}", "--retry") == 75
    error = capsys.readouterr().err
    assert f"{file} is gone; the same command continues" in error


@pytest.mark.slow
def test_two_workers_one_killed_leave_the_bytes_of_one_process(images, dask, tmp_path, capsys):
    scheduler, _, start_worker = dask
    workers = [start_worker() for _ in range(2)]
    rows = [row(i, j, f"{i}{j}") for i in range(PEOPLE) for j in range(PEOPLE) if i != j]
    pairs = table(images, *rows, "lost\tsub-00_T1w.nii.gz\tnowhere.nii.gz\t\t", name="six.tsv")
    alone, together = tmp_path / "alone", tmp_path / "together"
    killed: list[Path] = []
    ended = threading.Event()

    def kill():
        """Kill the first worker that is at work on a pair, which has a record for so long."""
        end = time.monotonic() + 300
        while time.monotonic() < end and not ended.is_set():
            for path in (together / "failures").glob("[0-9][0-9].json"):
                with contextlib.suppress(FileNotFoundError):  # finished while it is looked at
                    said = path.read_text()
                    for worker in workers:
                        if re.search(rf"process {worker.pid}\b", said):
                            os.kill(worker.pid, signal.SIGKILL)
                            killed.append(path)
                            return
            time.sleep(0.002)

    watcher = threading.Thread(target=kill)
    watcher.start()
    try:
        assert register(pairs, together, f"--cluster={scheduler}") == 1
    finally:
        ended.set()
        watcher.join()
    said = capsys.readouterr().out
    assert len(killed) == 1 and sum(w.poll() == -signal.SIGKILL for w in workers) == 1
    assert all(said.count(f" {r[:2]}: similarity") == 1 for r in rows)
    with distributed.Client(scheduler_file=str(scheduler), set_as_default=False) as client:
        flags: Any = client.run(os.getenv, "XLA_FLAGS")  # of the one that is left
    assert len(flags) == 1 and all("xla_cpu" in value for value in flags.values())
    script = "from jaxreg.cli import main; raise SystemExit(main())"
    argv = ["register", f"--pairs={pairs}", f"--out={alone}", *DIRECT]
    one = subprocess.run(
        [sys.executable, "-c", script, *argv], env=killing.environment(), capture_output=True
    )
    assert one.returncode == 1, one.stderr
    assert {p.name for p in together.iterdir()} == {p.name for p in alone.iterdir()}
    passing = ("seconds", "peak_gigabytes")
    for name, found in results(together).items():
        expected = results(alone)[name]
        assert all(found[c] == expected[c] for c in COLUMNS if c not in passing)
    for r in rows:
        assert same_but_for_timings(together / r[:2], alone / r[:2]) == 9
