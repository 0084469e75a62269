"""What every test runs under.

Two CPU devices, programs compiled with few optimisations, strict settings of JAX, and shape
annotations that are checked.
"""

import os
import pkgutil
import threading

# Most of the time goes into compiling programs that then run once on a small volume.
FLAGS = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=1"
os.environ["JAX_PLATFORMS"] = "cpu"
if FLAGS not in os.environ.get("XLA_FLAGS", ""):  # a worker inherits them from the first process
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()

import jaxreg  # noqa: E402
from jaxreg import runtime  # noqa: E402

runtime.prepare()  # before jax is imported: it sets the compilation cache

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# All but the configurations, which refuse wrong values themselves, in words for the user, and the
# pipelines, whose functions other libraries call by the names of their arguments.
PACKAGES = {m.name for m in pkgutil.iter_modules(jaxreg.__path__, "jaxreg.")}
install_import_hook(
    sorted(PACKAGES - {"jaxreg.configuration", "jaxreg.pipelines"}), "beartype.beartype"
)


@pytest.fixture(scope="session", autouse=True)
def threads_without_tracer() -> None:
    """Coverage is that of the main thread.

    Where two threads begin at once, one of them may fail to install the tracer (Python 3.11), never
    runs its work, and whoever waits for that waits forever.
    """
    threading.settrace(None)  # pyright: ignore[reportArgumentType]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how to run the tests that were left out."""
    if config.option.markexpr == "not slow":
        terminalreporter.write_line("The slow tests were left out. All tests: pytest -m ''")
