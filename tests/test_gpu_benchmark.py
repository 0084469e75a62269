"""The benchmark that is carried to a GPU machine runs where there is none, on tiny volumes."""

import importlib.util
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def gpu(monkeypatch):
    """The script as a module, with sizes for a CPU."""
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SHAPES", {"2 mm": (16, 16, 16)})
    monkeypatch.setattr(module, "DTYPES", {"float32": jnp.float32})
    for name, value in {"RUNS": 1, "PRODUCT": 64, "COPIED": 1024}.items():
        monkeypatch.setattr(module, name, value)
    return module


@pytest.mark.slow
def test_every_job_is_measured_and_kept(gpu, tmp_path, monkeypatch, capsys):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--only=jaxreg", f"--out={out}"])
    monkeypatch.setattr(gpu, "register_job", lambda: {"ms": 5000.0, "host_gb": 1.0})
    gpu.main()
    found = json.loads(out.read_text())
    jobs = [name for name in found if " | " in name]
    assert len(jobs) == 4 and all(found[name]["ms"] > 0 for name in jobs)
    assert found["same_bits"] is True
    assert "jaxreg register, shell to report: 5.0 s" in capsys.readouterr().out


@pytest.mark.slow
def test_a_whole_registration_is_measured(gpu):
    measured = gpu.register_job()
    assert measured["ms"] > 0 and 0.1 < measured["host_gb"] < 8


def test_what_does_not_fit_into_the_time_is_named(gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--only=jaxreg", "--seconds=-1"])
    monkeypatch.setattr(gpu, "same_bits", lambda: True)
    gpu.main()
    said = capsys.readouterr().out
    assert said.count("left out: the time is up") == 4
    assert "jaxreg register: left out" in said
