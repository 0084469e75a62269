"""Several processes on the loopback against one with the same global batch."""

import os
import signal
import socket
import subprocess
import sys

import jax
import killing
import numpy as np
import pytest

from jaxreg import distributed
from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.serialization import as_json, identity
from jaxreg.configuration.training import (
    CohortConfig,
    ProcessConfig,
    RegistrationConfig,
    SessionConfig,
)
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.errors import InputError
from jaxreg.models.checkpoint import Checkpoints, Meta
from jaxreg.models.model import init_params

TIMEOUT = 300
"""Seconds that the processes of a job wait for each other, which a busy machine may take."""
FLAGS = ["--batch-size=4", "--warmup-steps=2", "--learning-rate=0.01", "--log-every=1"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    subjects = {"train": 5, "val": 3}
    folder = tmp_path_factory.mktemp("processes") / "cohort"
    return write_phantom_cohort(folder, shape=(16, 16, 16), spacing_mm=12.0, subjects=subjects)


@pytest.fixture(scope="module")
def alone(cohort, tmp_path_factory):
    """What one process does in 6 steps."""
    workdir = tmp_path_factory.mktemp("processes") / "alone"
    (only,) = start(1, cohort, workdir, "--steps=6")
    assert finish(only)[0] == 0
    return workdir


def start(count, cohort, workdir, *flags, timeout=TIMEOUT):
    """The processes of a training job."""
    every = ["--checkpoint-every=2", "--validate-every=3", f"--process-timeout={timeout}"]
    script = str(killing.ROOT / "tests" / "helpers" / "job.py")
    argv = [script, f"--data={cohort}", f"--workdir={workdir}", *FLAGS, *every, *flags]
    return launch(count, argv)


def launch(count, argv):
    """The processes of a job on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = [f"--coordinator=127.0.0.1:{port}", f"--num-processes={count}"] if count > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, *argv, *job, *([f"--process-id={i}"] if count > 1 else [])],
            env=killing.environment(),
            cwd=killing.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def finish(process):
    """Exit code, standard output, standard error."""
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def same_run(workdir, alone):
    """Loss curve, validation and parameters agree to the order of a mean of four numbers."""
    mine, its = killing.curve(workdir), killing.curve(alone)
    assert mine.keys() == its.keys() and ("train/loss", 6) in mine and ("val/answer", 6) in mine
    for place, value in its.items():
        assert mine[place] == pytest.approx(value, rel=2e-5, abs=1e-6), place
    rows = [(w / "validation.csv").read_text().splitlines() for w in (workdir, alone)]
    assert [r.split(",")[0] for r in rows[0]] == [r.split(",")[0] for r in rows[1]]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_train_like_one_and_the_first_alone_speaks(
    count, cohort, alone, tmp_path
):
    job = start(count, cohort, tmp_path / "run", "--steps=6")
    results = [finish(process) for process in job]
    assert [code for code, _, _ in results] == [0] * count, results
    assert f"{count} processes, {count} devices" in results[0][1]
    assert "finished at step 6" in results[0][1]
    assert all("jaxreg" not in out and "step" not in err for _, out, err in results[1:])
    same_run(tmp_path / "run", alone)
    assert killing.steps_saved(tmp_path / "run") == [2, 4, 6]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(cohort, alone, tmp_path):
    workdir = tmp_path / "run"
    job = start(2, cohort, workdir, "--steps=6", "--pause")
    assert killing.wait_until(lambda: 2 in killing.steps_saved(workdir), job[0])
    job[1].send_signal(signal.SIGTERM)  # one is told, all stop after the same step
    results = [finish(process) for process in job]
    saved = killing.steps_saved(workdir)[-1]
    if saved < 6:  # on a busy machine the signal may come after the last step
        assert [code for code, _, _ in results] == [128 + signal.SIGTERM] * 2, results
        assert f"SIGTERM: saved step {saved} in" in results[0][2]
    (only,) = start(1, cohort, workdir, "--steps=6")
    assert finish(only)[0] == 0
    same_run(workdir, alone)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_with_an_error_in_time(victim, cohort, tmp_path):
    workdir = tmp_path / "run"
    job = start(2, cohort, workdir, "--steps=100000", timeout=60)
    assert killing.wait_until(lambda: killing.steps_saved(workdir), job[0])
    job[victim].kill()
    code, _, err = finish(job[1 - victim])
    job[victim].communicate()
    assert code not in (0, None)
    assert "another process of the job has ended" in err or "another task died" in err, err


@pytest.mark.slow
def test_a_process_that_never_comes_is_missed_in_time(cohort, tmp_path):
    job = start(2, cohort, tmp_path / "run", "--steps=2", timeout=5)
    os.kill(job[1].pid, signal.SIGSTOP)
    code, _, err = finish(job[0])
    job[1].kill()
    job[1].communicate()
    assert code not in (0, None)
    assert "did not come together" in err or "DEADLINE_EXCEEDED" in err or "died" in err, err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_refused(cohort, tmp_path):
    job = start(2, cohort, tmp_path / "run", "--steps=2", "--batch-size=3")
    for index, (code, _, err) in enumerate(map(finish, job)):
        assert code == 2
        assert f"process {index} of 2: --batch-size: expected a multiple of the 2" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags",
    [
        {"coordinator": "host"},
        {"coordinator": "host:1 2", "num_processes": 2, "process_id": 0},
        {"coordinator": "host:99"},
        {"num_processes": 2, "process_id": 0},
        {"coordinator": "host:99", "num_processes": 2},
        {"coordinator": "host:99", "num_processes": 2, "process_id": 2},
        {"coordinator": "host:99", "num_processes": 2, "process_id": -1},
        {"coordinator": "auto", "num_processes": 2, "process_id": 0},
        {"process_timeout": 0},
    ],
)
def test_flags_that_describe_no_job_are_refused(flags):
    with pytest.raises(InputError, match="--coordinator|--process"):
        ProcessConfig(**flags)


def test_one_process_has_everything_to_itself():
    assert (distributed.count(), distributed.index()) == (1, 0)
    assert distributed.share([1, 2, 3]) == [1, 2, 3]
    assert distributed.broadcast_from_primary(lambda: {"a": 1}) == {"a": 1}
    rows = np.arange(6.0).reshape(2, 3)
    assert distributed.gather(rows) is rows
    assert distributed.leave(3) == 3 and distributed.label() == ""
    assert distributed.lost(RuntimeError("Gloo all-reduce failed")) is None


@pytest.mark.parametrize(("items", "count"), [(7, 3), (2, 5), (0, 2), (12, 4), (1, 2)])
def test_shares_are_disjoint_ordered_and_even(items, count, monkeypatch):
    shares = []
    monkeypatch.setattr(distributed, "count", lambda: count)
    for index in range(count):
        monkeypatch.setattr(distributed, "index", lambda index=index: index)
        shares.append(distributed.share(range(items)))
    assert [x for share in shares for x in share] == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert items == 0 or shares[0]  # the first has the first: it makes the pictures


@pytest.mark.slow
def test_an_evaluation_by_three_processes_is_that_of_one(tmp_path):
    subjects = {"train": 2, "test": 4}
    folder = tmp_path / "cohort"
    cohort = write_phantom_cohort(folder, shape=(16, 16, 16), spacing_mm=12.0, subjects=subjects)
    session = SessionConfig(workdir=tmp_path / "run")
    objective = ObjectiveConfig(loss="mi", squarings=3)
    config = RegistrationConfig(CohortConfig(data=cohort), session=session, objective=objective)
    params = init_params(jax.random.key(0), config, None)
    where = {"spacing_mm": [12.0, 12.0, 12.0]}
    values = {"trainable": params, "frozen": {}}
    meta = Meta("reg", as_json(config), {**identity(config), **where}, {"next_index": 1}, 1)
    Checkpoints(tmp_path / "run").save(meta, values, {"count": jax.numpy.zeros(1)})
    tables = []
    for count in (1, 3):
        job = launch(count, [str(killing.ROOT / "eval.py"), f"--workdir={tmp_path / 'run'}"])
        results = [finish(process) for process in job]
        assert [code for code, _, _ in results] == [0] * count, results
        assert "results, summary and figures are in" in results[0][1]
        assert all("results" not in out and "Dice" not in out for _, out, _ in results[1:])
        written = tmp_path / "run" / "eval" / "test"
        rows = (written / "results.csv").read_text().splitlines()
        tables.append([row.rsplit(",", 1)[0] for row in rows])  # all but the seconds
        assert not list(written.glob(".scores-*"))
    assert tables[0] == tables[1] and len(tables[0]) > 4 * 12
