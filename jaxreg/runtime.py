"""The process that jaxreg runs in: XLA's options, the compilation cache, threads, peak memory.

Scripts call `prepare` before JAX starts. Importing jaxreg changes nothing, and this module imports
no JAX.
"""

import ctypes
import importlib.metadata
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None

PROGRAMS_FOLDER = "JAXREG_PROGRAMS"
"""Environment variable: the folder of `jaxreg.stored_programs`; empty where none is wanted."""
_ARENA_MAX = -8
"""The option of glibc's `mallopt` that limits the number of heaps."""
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_CPU_FUSIONS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
_TESTED_JAXLIB = ("0.10.1", "0.12.0.1")
"""An unknown flag aborts the process, so it is set for versions it was tried with."""


def prepare() -> None:
    """Set the environment of the JAX backend, leaving what the user has set.

    XNNPACK's successor (YNN) speeds up CPU convolutions: the network's gradient takes 0.74 (0.10.1)
    and 0.67 (0.12.0.1) of the CPU seconds, and bfloat16 products are summed in float32, which
    0.10.1 does not do without it. With element-wise fusion too it would slow down every gather ten
    times, so that stays off.

    XLA's own log is silenced. Of each cached program that a CPU loads, 0.10.1 says there that
    `prefer-no-gather` is missing and that SIGILL may follow. Both are preferences of the compiler,
    not instructions (openxla/xla#44565), and what the processor does know is a part of the cache's
    key. Errors that matter are raised.
    """
    _share_heaps()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    flags = os.environ.get("XLA_FLAGS", "")
    tested = importlib.metadata.version("jaxlib") in _TESTED_JAXLIB
    if tested and _CPU_FLAG not in flags:
        os.environ.update(XLA_FLAGS=f"{flags} {_CPU_FLAG}={_CPU_FUSIONS}".strip())
    cache = cache_folder()
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "xla"))
        os.environ.setdefault(PROGRAMS_FOLDER, str(cache / "programs"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _share_heaps() -> None:
    """Let the threads of this process share two heaps, unless the user has set their number.

    glibc gives each of them one of its own, and keeps what is freed there: a registration of 1 mm
    held 0.25 GB more on two cores.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if set_option is not None:
            set_option(_ARENA_MAX, 2)


def cache_folder() -> Path | None:
    """Where jaxreg may keep files that it can make again; None where the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxreg"
    except RuntimeError:
        return None


def in_threads(*jobs: Callable[[], Any]) -> list[Any]:
    """The results of independent calls, two at a time; the first one's error comes first.

    This saves time where the libraries release Python's lock: NumPy, zlib, SimpleITK.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def peak_gigabytes() -> float:
    """The largest memory that this process has held; 0 where the system does not tell."""
    if resource is None:
        return _peak_gigabytes_on_windows()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def _peak_gigabytes_on_windows() -> float:
    """The largest working set of this process."""

    class Counters(ctypes.Structure):
        _fields_ = [("size", ctypes.c_ulong), ("faults", ctypes.c_ulong)] + [
            (name, ctypes.c_size_t)
            for name in ("peak", "now", "peak_paged", "paged", "peak_other", "other", "file", "top")
        ]

    counters = Counters(size=ctypes.sizeof(Counters))
    windows = getattr(ctypes, "windll").kernel32  # noqa: B009 (unknown to type checkers elsewhere)
    windows.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(windows.GetCurrentProcess())
    known = windows.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
    return counters.peak / 1e9 if known else 0.0
