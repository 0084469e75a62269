"""The environment that `prepare` sets up: what the user has set stays, and XLA's log is silent."""

import os
import subprocess
import sys

from jaxreg import runtime

PROGRAM = """
from jaxreg import runtime
runtime.prepare()
import jax
print(jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((8, 8)))[0, 0])
"""


def test_a_program_from_the_cache_is_loaded_without_a_word(tmp_path):
    unset = {"TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for _ in range(2):  # compiled, then loaded
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(
            command, check=True, env={**environment, **cache}, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ("9.0\n", "")
    assert list(tmp_path.glob("jit_*"))


def test_the_log_level_that_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(os, "environ", {"TF_CPP_MIN_LOG_LEVEL": "1"})
    runtime.prepare()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"
