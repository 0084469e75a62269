"""Rows of a table in several jobs, settings of each pair, kinds of failures, and what is retried.

Where only the bookkeeping is tested, a registration is a folder with the record of one.
"""

import json
import re
import signal
import subprocess
import sys

import batch_job
import killing
import numpy as np
import pytest
from batch_job import write_result
from registration_data import write_subject

from jaxreg.cli import main
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import EnvironmentFailure, InputError
from jaxreg.io.tables import read_table
from jaxreg.registration.batch import batch, failures
from jaxreg.registration.batch.columns import COLUMNS, SETTINGS
from jaxreg.registration.batch.group import pairs_in
from jaxreg.registration.batch.pairs import read_pairs, rows_of

PAIRS = 6


@pytest.fixture
def table(tmp_path):
    """A table of six pairs whose images are a few bytes."""
    lines = ["name\tfixed\tmoving"]
    for index in range(PAIRS):
        for side in "fm":
            (tmp_path / f"{side}{index}.nii").write_text(f"{side}{index}")
        lines.append(f"p{index}\tf{index}.nii\tm{index}.nii")
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def registered(monkeypatch):
    """The names of the pairs that were registered, and errors to raise, by name."""
    calls: list[str] = []
    errors: dict[str, BaseException] = {}
    settings: dict[str, RegisterConfig] = {}

    def register(fixed, moving, folder, config, **more):
        calls.append(folder.name)
        settings[folder.name] = config
        if folder.name in errors:
            raise errors[folder.name]
        write_result(fixed, moving, folder, config)

    monkeypatch.setattr(batch, "register_files", register)
    return calls, errors, settings


def register(table, *flags):
    out = table.parent / "out"
    return main(["register", f"--pairs={table}", f"--out={out}", "--optimize-only", *flags])


def results(table):
    return {row["name"]: row for row in read_table(table.parent / "out" / "results.tsv", ("name",))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", [6]), ("1-3", [0, 1, 2]), ("1-2,9,4 - 5", [0, 1, 3, 4, 8]), ("3,1-3", [0, 1, 2])],
)
def test_rows_count_from_one(text, expected):
    assert rows_of(text, 9) == expected


@pytest.mark.parametrize("text", ["0", "10", "5-4", "10-12", "3,11-20", "a", "", "1,,2", "-3"])
def test_rows_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--rows: expected rows"):
        rows_of(text, 9)


def test_a_job_registers_its_rows_and_adds_them_to_the_table(table, registered, capsys):
    calls, _, _ = registered
    assert register(table, "--rows=2-3") == 0
    assert capsys.readouterr().out.startswith("2 of 6 pairs, 0 of them done already\n")
    assert register(table, "--rows=6,1") == 0
    assert calls == ["p1", "p2", "p0", "p5"]
    assert list(results(table)) == ["p0", "p1", "p2", "p5"]
    row = results(table)["p5"]
    assert row["seconds"] == "31.2" and row["peak_gigabytes"] == "1.875"
    assert row["warnings"] == "2" and row["warning_texts"] == "a first one; a second one"
    assert row["verdict"] == "amber" and row["verdict_reasons"] == "2 warnings"
    assert not (table.parent / "out" / "index.html").exists()
    assert register(table) == 0
    assert calls[4:] == ["p3", "p4"] and list(results(table)) == [f"p{i}" for i in range(6)]
    assert (table.parent / "out" / "index.html").is_file()


def test_the_last_job_of_an_array_may_ask_for_more_rows_than_there_are(table, registered, capsys):
    """Every row is registered by jobs of four, as the script of docs/scaling.md names them."""
    for first in range(1, PAIRS + 1, 4):
        assert register(table, f"--rows={first}-{first + 3}") == 0
    assert f"--rows: 5-8 ends with row {PAIRS}, the last one" in capsys.readouterr().out
    assert sorted(registered[0]) == [f"p{i}" for i in range(PAIRS)] == list(results(table))
    assert register(table, "--rows=9-12") == 2
    assert f"--rows: expected rows from 1 to {PAIRS}, got 9-12." in capsys.readouterr().err


def test_blank_lines_and_the_header_are_no_rows(table, registered):
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], "", lines[1], "\t\t", *lines[2:]]) + "\n")
    assert register(table, "--rows=2") == 0
    assert registered[0] == ["p1"]


def test_an_input_that_failed_is_tried_again_when_it_changed_or_on_demand(table, registered):
    calls, errors, _ = registered
    errors["p1"] = InputError("f1.nii: damaged.")
    assert register(table) == 1
    assert results(table)["p1"]["kind"] == "input"
    assert register(table) == 1 and calls.count("p1") == 1
    assert register(table, "--retry") == 1 and calls.count("p1") == 2
    assert register(table, "--rows=2", "--steps=7") == 1 and calls.count("p1") == 3
    (table.parent / "f1.nii").write_text("whole")
    del errors["p1"]
    assert register(table) == 0 and calls.count("p1") == 4
    assert results(table)["p1"]["status"] == "done"
    assert calls.count("p0") == 1 and not any((table.parent / "out" / "failures").iterdir())


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (MemoryError("no room"), "environment", 75),
        (EnvironmentFailure("out: not written (No space left on device)."), "environment", 75),
        (ValueError("shapes"), "internal", 1),
    ],
)
def test_what_is_no_fault_of_the_input_is_tried_again(table, registered, error, kind, code):
    calls, errors, _ = registered
    errors["p3"] = error
    assert register(table) == code
    row = results(table)["p3"]
    assert (row["status"], row["kind"]) == ("failed", kind)
    del errors["p3"]
    assert register(table) == 0 and calls.count("p3") == 2


def test_one_pair_that_can_be_tried_again_asks_for_the_same_command(table, registered):
    """Of a mixture the retryable pairs are done by the loop of docs/scaling.md, then it ends."""
    calls, errors, _ = registered
    errors.update(p0=MemoryError("no room"), p1=InputError("f1.nii: damaged."))
    assert register(table) == 75
    del errors["p0"]
    assert register(table) == 1
    assert calls.count("p0") == 2 and calls.count("p1") == 1
    errors["p0"], errors["p1"] = ValueError("shapes"), ValueError("shapes")
    assert register(table, "--retry") == 1


def test_a_pair_that_killed_its_process_is_recorded_and_tried_last(table, registered, capsys):
    calls, _, _ = registered
    out = table.parent / "out"
    (out / "failures").mkdir(parents=True)
    failures.record(out, read_pairs(table)[0], failures.started_here())
    assert main(["group", str(out)]) == 0
    row = results(table)["p0"]
    assert (row["status"], row["kind"]) == ("unfinished", "environment")
    assert "killed" in row["reason"] and row["fixed"] == "f0.nii"
    assert register(table, "--at-once=1") == 0
    assert calls == ["p1", "p2", "p3", "p4", "p5", "p0"]
    assert results(table)["p0"]["status"] == "done"


def test_an_interruption_is_no_failure(table, registered):
    registered[1]["p2"] = KeyboardInterrupt()
    assert register(table, "--at-once=1") == 128 + signal.SIGINT
    assert list(results(table)) == ["p0", "p1"]
    assert register(table, "--at-once=2") == 128 + signal.SIGINT
    assert list(results(table))[:2] == ["p0", "p1"] and "p2" not in results(table)
    assert not any((table.parent / "out" / "failures").iterdir())


ENDED_BY_SIGTERM = """
import sys, time
from pathlib import Path
from jaxreg.cli import main
from jaxreg.registration.batch import batch

def register(fixed, moving, folder, config, **more):
    (Path(fixed).parent / f"begun-{folder.name}").touch()
    time.sleep(600 if folder.name != "p0" else 0)
    raise MemoryError("no room")

batch.register_files = register
raise SystemExit(main(sys.argv[1:]))
"""


def test_sigterm_says_a_line_and_records_the_pairs_at_work(table, registered, capsys):
    out = table.parent / "out"
    flags = [f"--pairs={table}", f"--out={out}", "--optimize-only", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-c", ENDED_BY_SIGTERM, "register", *flags],
        env=killing.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    begun = [table.parent / f"begun-p{i}" for i in (1, 2)]
    assert killing.wait_until(lambda: all(path.is_file() for path in begun), process)
    process.terminate()
    said = process.communicate(timeout=300)[1]
    assert process.returncode == -signal.SIGTERM  # a shell says 143
    last = said.splitlines()[-1]
    assert "stopped by SIGTERM" in last and "the same command" in last and "2 at work" in last
    for name in ("p1", "p2"):
        failure = failures.failure_of(out, name)
        assert failure is not None and failure.unfinished and failure.kind == "environment"
        assert "stopped by SIGTERM" in failure.reason and f"process {process.pid}" in failure.reason
    assert failures.failure_of(out, "p3") is None
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert register(table, "--at-once=1") == 0
    assert registered[0] == ["p0", "p3", "p4", "p5", "p1", "p2"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_failure_over_an_earlier_result_is_told(table, registered):
    assert register(table) == 0
    registered[1]["p1"] = InputError("f1.nii: damaged.")
    assert register(table, "--steps=7", "--overwrite") == 1
    assert results(table)["p1"]["status"] == "failed"
    assert (table.parent / "out" / "p1" / "provenance.json").is_file()


def with_column(table, column, *values):
    lines = table.read_text().splitlines()
    cells = [column, *values, *[""] * (PAIRS - len(values))]
    table.write_text("\n".join(f"{a}\t{b}" for a, b in zip(lines, cells, strict=True)) + "\n")


def test_a_pair_has_the_settings_of_its_row_and_else_those_of_the_flags(table, registered):
    with_column(table, "lam", "0.25", "auto", "n/a")
    with_column(table, "transform", "", "", "", "rigid", "deformable")
    with_column(table, "steps", "7")
    with_column(table, "init", "none", "start.mat")
    calls, _, settings = registered
    assert register(table, "--lam=0.5", "--steps=3") == 0
    assert [settings[f"p{i}"].lam for i in range(PAIRS)] == [0.25, "auto", 0.5, None, 0.5, 0.5]
    assert [settings[f"p{i}"].steps for i in range(PAIRS)] == [7, 3, 3, None, 3, 3]
    assert [settings[f"p{i}"].transform for i in (2, 3)] == ["deformable", "rigid"]
    assert settings["p0"].init == "none" and settings["p1"].init == str(table.parent / "start.mat")
    assert settings["p3"].optimize_only is False and settings["p2"].optimize_only is True


def test_columns_of_ones_own_are_carried_into_the_results(table, registered, capsys):
    for column in ("age", "site", "sex", "subject", "session", "group", "x_status", "x_mask"):
        with_column(table, column, *(f"{column} {i}" for i in range(PAIRS - 1)))
    registered[1]["p1"] = InputError("f1.nii: damaged.")
    assert register(table, "--rows=1-3") == 1
    assert "carries into results.tsv and does not read: age, site, sex" in capsys.readouterr().out
    assert register(table) == 1
    before = (table.parent / "out" / "results.tsv").read_bytes()
    assert main(["group", str(table.parent / "out")]) == 0
    assert (table.parent / "out" / "results.tsv").read_bytes() == before
    found = results(table)
    assert [found[f"p{i}"]["age"] for i in (0, 1, 4, 5)] == ["age 0", "age 1", "age 4", "n/a"]
    assert found["p3"]["x_mask"] == "x_mask 3" and found["p3"]["lam"] == "0.5"
    with_column(table, "dose", "1 mg")  # nothing of the pair's result rests on it
    assert register(table) == 1 and registered[0].count("p0") == 1
    assert results(table)["p0"]["dose"] == "1 mg"


def test_a_row_whose_settings_changed_is_no_finished_one(table, registered, capsys):
    assert register(table) == 0
    with_column(table, "lam", "0.25")
    assert register(table) == 2
    assert "p0: holds a result of other settings" in capsys.readouterr().err
    assert register(table, "--rows=2-6") == 0
    assert register(table, "--overwrite") == 0
    assert registered[0].count("p0") == 2 and registered[0].count("p1") == 1


@pytest.mark.parametrize(
    ("column", "cell", "wanted"),
    [
        ("lamb", "1", "unknown column 'lamb'; did you mean lam?"),
        ("transfrom", "rigid", "unknown column 'transfrom'; did you mean transform?"),
        ("fixed_lables", "a.nii", "did you mean fixed_labels?"),
        ("Lam", "1", "unknown column 'Lam'; did you mean lam?"),
        ("lambda", "1", "unknown column 'lambda'; did you mean lam?"),
        ("mask", "a.nii", "unknown column 'mask'; did you mean fixed_mask?"),
        ("moving_image", "a.nii", "did you mean moving.* begins with x_: x_moving_image"),
        ("status", "control", "the column 'status' is one of results.tsv; call it x_status"),
        ("lam", "1.5", r"pair 'p0': --lam: expected a number in \[0, 1\]"),
        ("lam", "half", r"pair 'p0': --lam: expected a number in \[0, 1\] or auto"),
        ("lam", "0,3", "got '0,3'; a decimal point is needed: 0.3."),
        ("transform", "elastic", "pair 'p0': --transform: expected one of deformable"),
        ("steps", "many", "line 2: steps: expected a whole number, got 'many'"),
        ("spacing", "fine", "line 2: spacing: expected a number, got 'fine'"),
        ("optimize_only", "maybe", "line 2: optimize_only: expected true or false"),
        ("refine", "3", "pair 'p0': --refine: not read with --optimize-only"),
    ],
)
def test_a_column_or_cell_that_cannot_be_is_refused_before_any_pair(
    table, registered, capsys, column, cell, wanted
):
    with_column(table, column, cell)
    assert register(table) == 2
    assert re.search(wanted, capsys.readouterr().err)
    assert registered[0] == []


def test_every_setting_of_a_registration_is_a_column_or_one_of_all_pairs():
    shared = {"model", "segmentation", "outputs", "warp_spacing", "also"}
    assert set(RegisterConfig.__dataclass_fields__) == {*COLUMNS, *shared} - {
        "name",
        "fixed",
        "moving",
    }
    assert len(set(SETTINGS)) == len(SETTINGS)


@pytest.mark.parametrize("flags", [["--rows=1"], ["--retry"]])
def test_flags_of_a_table_are_refused_without_one(capsys, flags):
    assert main(["register", "f.nii", "m.nii", "--out=o", *flags]) == 2
    assert f"{flags[0].split('=')[0]}: read only with --pairs" in capsys.readouterr().err


def test_group_needs_a_folder_with_pairs(tmp_path, capsys):
    assert main(["group", str(tmp_path / "absent")]) == 2
    assert main(["group", str(tmp_path)]) == 2
    assert "no such folder" in (said := capsys.readouterr().err) and "holds no pairs" in said


def test_group_makes_table_and_page_from_the_folders_alone(table, registered, capsys):
    registered[1]["p4"] = InputError("m4.nii: damaged.")
    assert register(table) == 1
    out = table.parent / "out"
    before = (out / "results.tsv").read_bytes(), (out / "index.html").read_bytes()
    (out / "index.html").unlink()
    assert main(["group", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["counts"] == {"amber": 5, "failed": 1}
    assert ((out / "results.tsv").read_bytes(), (out / "index.html").read_bytes()) == before
    (out / "results.tsv").unlink()
    assert [pair.name for pair in pairs_in(out)] == ["p0", "p1", "p2", "p3", "p5", "p4"]


@pytest.mark.slow
@pytest.mark.parametrize("locks", ["locks", "none"])
def test_four_processes_lose_no_line_with_and_without_locks(tmp_path, locks):
    """Each adds 15 pairs and writes the table after each; one more was killed while it wrote."""
    lines = ["name\tfixed\tmoving"]
    (tmp_path / "f.nii").write_text("f")
    lines += [f"p{index:02d}\tf.nii\tf.nii" for index in range(60)]
    table = tmp_path / "pairs.tsv"
    table.write_text("\n".join(lines) + "\n")
    (tmp_path / "out" / "failures").mkdir(parents=True)
    (tmp_path / "out" / ".99999999-results.tsv").write_text("name\tfix")
    argv = [sys.executable, batch_job.__file__, str(table)]
    jobs = [
        subprocess.Popen([*argv, str(job), locks], env=killing.environment()) for job in range(4)
    ]
    assert killing.wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 4, jobs[0])
    (tmp_path / "go").touch()
    assert [job.wait(timeout=300) for job in jobs] == [0] * 4
    assert list(results(table)) == [f"p{index:02d}" for index in range(60)]
    left = {p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")}
    assert left == (set() if locks == "locks" else {".99999999-results.tsv"})


@pytest.mark.slow
def test_four_jobs_of_an_array_one_killed_give_one_table_and_one_page(tmp_path):
    """Real registrations: two rows a job, the pair of the killed job is made up for."""
    lines = ["name\tfixed\tmoving"]
    for index in range(2):
        write_subject(tmp_path, index, "T1w")
    lines += [f"p{i}\tsub-0{i % 2}_T1w.nii.gz\tsub-0{1 - i % 2}_T1w.nii.gz" for i in range(8)]
    table, out = tmp_path / "pairs.tsv", tmp_path / "out"
    table.write_text("\n".join(lines) + "\n")
    flags = ["--optimize-only", "--spacing=8", "--steps=2", "--init=com", "--extract=never"]
    argv = ["register", f"--pairs={table}", f"--out={out}", *flags]
    script = "from jaxreg.cli import main; raise SystemExit(main())"

    def start(*more):
        return subprocess.Popen(
            [sys.executable, "-c", script, *argv, *more],
            env=killing.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    jobs = [start(f"--rows={2 * job + 1}-{2 * job + 2}") for job in range(4)]
    victim = jobs[3]
    assert killing.wait_until((out / "failures" / "p6.json").is_file, victim)
    victim.kill()
    said = [job.communicate(timeout=500)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0, -signal.SIGKILL], said
    done = {name for name, row in results(table).items() if row["status"] == "done"}
    assert {f"p{i}" for i in range(6)} <= done
    assert main(["group", str(out)]) == 0
    killed = [row for row in results(table).values() if row["status"] == "unfinished"]
    assert all(row["kind"] == "environment" for row in killed)
    assert main(argv) == 0
    assert [row["status"] for row in results(table).values()] == ["done"] * 8
    assert not any((out / "failures").iterdir())
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    assert np.all([float(row["seconds"]) > 0 for row in results(table).values()])
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 8 and 'href="p7/report.html"' in page
