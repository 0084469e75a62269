"""What `jaxreg register` does how often and for how long, by function: see docs/experiments.

    python benchmarks/profile_register.py FIXED MOVING

The pair is registered twice in processes of their own; the table is that of the second run, whose
compiled programs are in the cache. A function's seconds contain those of what it calls, and
functions run beside each other in several threads, so the rows do not add up to the whole. The last
lines say how often each input was opened.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FUNCTIONS = {
    "io.images": ("read_image", "write_like"),
    "io.compression": ("packing", "unpacking"),
    "geometry.itk_sampling": ("sample_affine", "sample_field", "sample_displaced"),
    "geometry.transforms": ("compose_chain", "jacobian_determinant", "resample_by"),
    "segmentation.networks": ("load_segmentation",),
    "segmentation.segment": (
        "find_brain",
        "coarse_codes",
        "fine_probabilities",
        "mirrored_view",
        "sampled",
    ),
    "segmentation.own_grid": ("on_own_grid", "codes_on"),
    "models.release": ("load_model",),
    "registration.inputs": ("read_subject",),
    "registration.linear.starts": ("linear_starts",),
    "registration.deformable.grid": ("network_grid", "pairs_on_grid"),
    "registration.deformable.prediction": ("predicted",),
    "registration.deformable.optimization": ("optimize_velocity",),
    "registration.deformable.deformation": ("deformations", "no_deformation"),
    "registration.output.estimate": ("estimated_dice",),
    "registration.output.files": ("make_outputs", "write_outputs", "written_map"),
}
"""Functions of jaxreg, by module."""


def main(fixed: str, moving: str) -> None:
    """Register twice, and print what the second run says."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, __file__, "--counted", fixed, moving, folder]
        for _ in range(2):
            start = time.perf_counter()
            done = subprocess.run(argv, check=True, capture_output=True, text=True)
            whole = time.perf_counter() - start
    counted = json.loads(done.stdout.splitlines()[-1])
    print("| function | calls | seconds | processor seconds of its thread |\n|---|---|---|---|")
    for name, (calls, seconds, processor) in sorted(
        counted["functions"].items(), key=lambda item: -item[1][1]
    ):
        print(f"| `{name}` | {calls} | {seconds:.2f} | {processor:.2f} |")
    print(f"| **the whole command** | 1 | {whole:.1f} | {counted['processor']:.1f} |\n")
    for name, times in counted["opened"].items():
        print(f"{name} was opened {times} times.")


def count(fixed: str, moving: str, folder: str) -> None:
    """Register a pair in this process, and print what was counted as a line of JSON."""
    from jaxreg import cli, runtime

    runtime.prepare()
    opened = dict.fromkeys((str(Path(fixed).resolve()), str(Path(moving).resolve())), 0)

    def heard(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str):
            path = str(Path(arguments[0]).resolve())
            if path in opened:
                opened[path] += 1

    sys.addaudithook(heard)
    functions: dict[str, list[float]] = {}
    for module, names in FUNCTIONS.items():
        for name in names:
            _count_calls(f"jaxreg.{module}", name, functions)
    cli.main(["register", fixed, moving, f"--out={folder}/out", "--overwrite", "--quiet"])
    processor = time.process_time()
    called = {name: numbers for name, numbers in functions.items() if numbers[0]}
    print(json.dumps({"functions": called, "opened": opened, "processor": processor}))


def _count_calls(module: str, name: str, functions: dict[str, list[float]]) -> None:
    """Put a function that counts in the place of another, wherever that was imported."""
    function = getattr(importlib.import_module(module), name)
    numbers, lock = functions.setdefault(name, [0, 0.0, 0.0]), threading.Lock()

    def counted(*arguments, **more):
        start, processor = time.perf_counter(), time.thread_time()
        try:
            return function(*arguments, **more)
        finally:
            with lock:
                numbers[0] += 1
                numbers[1] += time.perf_counter() - start
                numbers[2] += time.thread_time() - processor

    for loaded in [m for n, m in sys.modules.items() if n.startswith("jaxreg")]:
        if getattr(loaded, name, None) is function:
            setattr(loaded, name, counted)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--counted"]:
        count(*sys.argv[2:])
    elif len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        raise SystemExit("usage: python benchmarks/profile_register.py FIXED MOVING")
