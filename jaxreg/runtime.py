"""What is set before JAX starts: XLA's CPU options and the persistent compilation cache.

Scripts call `prepare` first; importing jaxreg changes nothing.
"""

import importlib.metadata
import os
from pathlib import Path

_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_CPU_FUSIONS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
_TESTED_JAXLIB = ("0.10.2",)
"""An unknown flag aborts the process, so it is set for versions it was tried with."""


def prepare() -> None:
    """Set the environment of the JAX backend, leaving what the user has set.

    XNNPACK's successor doubles the speed of CPU convolutions; with element-wise fusion too it would
    slow down every gather ten times, so that stays off.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    tested = importlib.metadata.version("jaxlib") in _TESTED_JAXLIB
    if tested and _CPU_FLAG not in flags:
        os.environ.update(XLA_FLAGS=f"{flags} {_CPU_FLAG}={_CPU_FUSIONS}".strip())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxreg" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
