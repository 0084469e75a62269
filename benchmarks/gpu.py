"""jaxreg on one GPU, beside VoxelMorph in PyTorch where both are installed: see gpu.sh.

`python benchmarks/gpu.py [--seconds 400] [--out table.json] [--only jaxreg]` measures, at 2 mm and
at 1 mm and in float32 and bfloat16, a registration by the network (network, integration, warp) and
a training step (LNCC and smoothness, gradient, Adam), the network's gradient with XLA's own 3-D
convolution and with its slice form (openxla/xla #34273), the device's own limits (a large matrix
product, a large copy), whether two steps from one state give the same bits, and the whole of
`jaxreg register`. All but the last asks for jax, flax, optax and jaxtyping alone; `register` needs
jaxreg's other dependencies and is left out, by name, where they are not installed. A job that would
begin after `--seconds` is left out and named.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import ConvolutionForm
from jaxreg.losses.objective import objective
from jaxreg.losses.similarity import make_similarity
from jaxreg.networks.velocity_unet import VelocityUNet
from jaxreg.pair import Pair
from jaxreg.spatial import displacement_of, warp

SHAPES = {"2 mm": (80, 96, 80), "1 mm": (192, 224, 192)}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
RUNS = 10
PRODUCT, COPIED = 8192, 2**28
"""Rows of the square matrices whose product is timed, and numbers that are copied."""
ROOT = Path(__file__).resolve().parents[1]


def pair(shape: tuple[int, int, int]) -> Pair:
    """Two noise images inside an ellipsoid that fills the grid as a brain does."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    mask = jnp.asarray(sum(a**2 for a in axes) < 0.9)
    fixed, moving = (jnp.asarray(rng.random((*shape, 1), np.float32)) for _ in range(2))
    inside = mask[..., None].astype(jnp.float32)
    return Pair(fixed * inside, moving * inside, mask, mask)


def timed(function: Callable[..., Any], *arguments) -> dict[str, float]:
    """Median milliseconds, seconds of compilation, and what the compiler says of the program.

    Operations are those of the program as it was lowered: on a GPU the compiled one calls cuDNN for
    its convolutions, of which the compiler counts none.
    """
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else float("nan")
    return {
        "ms": 1e3 * statistics.median(times),
        "compile_s": seconds,
        "gflop": (lowered.cost_analysis() or {}).get("flops", float("nan")) / 1e9,
        "gbyte": cost.get("bytes accessed", float("nan")) / 1e9,
        "memory_gb": peak / 1e9,
    }


def network_of(dtype, *, form: ConvolutionForm = "auto") -> VelocityUNet:
    """The registration network as it is trained, its convolutions computed in some form."""
    return VelocityUNet(dtype=dtype, form=form)


def registration(dtype, params, two: Pair, lam):
    """The moved image of a pair."""
    velocity = network_of(dtype).apply({"params": params}, two.fixed[None], two.moving[None], lam)
    assert isinstance(velocity, jax.Array)
    return warp(two.moving, displacement_of(velocity[0], two.fixed.shape[:3], squarings=7))


def training_loss(dtype, params, two: Pair, lam):
    """LNCC and smoothness of one pair."""
    config = ObjectiveConfig(loss="lncc")
    velocity = network_of(dtype).apply({"params": params}, two.fixed[None], two.moving[None], lam)
    similarity = make_similarity(config, ("T1w", "T2w"))
    assert isinstance(velocity, jax.Array)
    return objective(jax.random.key(0), two, velocity[0], lam[0], similarity, config)[0]


def training_step(dtype, params, state, two: Pair, lam):
    """Gradient and Adam."""
    gradient = jax.grad(functools.partial(training_loss, dtype))(params, two, lam)
    updates, state = optax.adam(1e-3).update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def network_gradient(dtype, form: ConvolutionForm, params, two: Pair, lam):
    """The gradient of the square of the velocity: the network alone."""

    def square(params):
        apply = network_of(dtype, form=form).apply
        velocity = apply({"params": params}, two.fixed[None], two.moving[None], lam)
        assert isinstance(velocity, jax.Array)
        return jnp.sum(velocity**2)

    return jax.grad(square)(params)


def limits() -> dict[str, float]:
    """Measured TFLOP/s of a large matrix product by type, and TB/s of a large copy."""
    found = {}
    for name, dtype in DTYPES.items():
        a = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT), dtype)
        found[f"{name}_tflops"] = 2 * PRODUCT**3 / timed(jnp.dot, a, a)["ms"] / 1e9
    big = jax.random.normal(jax.random.key(1), (COPIED,))
    found["copy_tb_s"] = 2 * big.nbytes / timed(lambda x: x + 1, big)["ms"] / 1e9
    return found


def jaxreg_jobs() -> dict[str, Callable[[], dict[str, float]]]:
    """Every job by name."""
    jobs: dict[str, Callable[[], dict[str, float]]] = {}
    lam = jnp.full(1, 0.5)
    for size, shape in SHAPES.items():
        for kind, dtype in DTYPES.items():

            def job(which, shape=shape, dtype=dtype):
                two = pair(shape)
                network = network_of(dtype)
                key = jax.random.key(0)
                start = jnp.zeros((1, 16, 16, 16, 1))
                params = network.init(key, start, start, lam)["params"]
                if which == "registration":
                    return timed(functools.partial(registration, dtype), params, two, lam)
                if which == "training step":
                    state = optax.adam(1e-3).init(params)
                    step = functools.partial(training_step, dtype)
                    return timed(step, params, state, two, lam)
                form = "slices" if which.endswith("slices") else "plain"
                gradient = functools.partial(network_gradient, dtype, form)
                return timed(gradient, params, two, lam)

            for which in (
                "registration",
                "training step",
                "network gradient, plain",
                "network gradient, slices",
            ):
                jobs[f"{which} | {size} | {kind}"] = functools.partial(job, which)
    return jobs


def voxelmorph_jobs() -> dict[str, Callable[[], dict[str, float]]]:
    """VoxelMorph's registration and training step (MSE and smoothness), where it is installed."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "voxelmorph")):
        print("torch and voxelmorph are not both installed: jaxreg alone.")
        return {}
    import torch  # pyright: ignore[reportMissingImports]
    import voxelmorph as vxm  # pyright: ignore[reportMissingImports]

    def job(which, shape, dtype):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = vxm.nn.models.VxmPairwise(
            ndim=3, source_channels=1, target_channels=1, nb_features=(16, 32, 32, 32),
            integration_steps=7,
        ).to(device)  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        moving, fixed = (torch.rand(1, 1, *shape, device=device) for _ in range(2))

        def run():
            with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
                if which == "registration":
                    with torch.no_grad():
                        model(moving, fixed, return_warped_source=True)
                    return
                velocity, moved = model(
                    moving, fixed, return_warped_source=True, return_field_type="velocity"
                )
                smooth = sum((torch.diff(velocity, dim=d) ** 2).mean() for d in (2, 3, 4))
                loss = ((moved - fixed) ** 2).mean() + 0.01 * smooth
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def wait():
            if device == "cuda":
                torch.cuda.synchronize()

        times = []
        for _ in range(RUNS + 2):
            start = time.perf_counter()
            run()
            wait()
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else float("nan")
        return {"ms": 1e3 * statistics.median(times[2:]), "memory_gb": peak / 1e9}

    return {
        f"VoxelMorph {which} | {size} | {dtype}": functools.partial(job, which, shape, dtype)
        for size, shape in SHAPES.items()
        for dtype in DTYPES
        for which in ("registration", "training step")
    }


def same_bits() -> bool:
    """Whether two training steps from one state give the same bits."""
    two, lam = pair(SHAPES["2 mm"]), jnp.full(1, 0.5)
    start = jnp.zeros((1, 16, 16, 16, 1))
    params = network_of(jnp.float32).init(jax.random.key(0), start, start, lam)["params"]
    state = optax.adam(1e-3).init(params)
    step = jax.jit(functools.partial(training_step, jnp.float32))
    first, second = (jax.tree.leaves(step(params, state, two, lam)[0]) for _ in range(2))
    return all(bool((a == b).all()) for a, b in zip(first, second, strict=True))


def register_job() -> dict[str, float]:
    """`jaxreg register` from the shell to the report, the second of two runs; memory of the host.

    The pair is the bundled mean brain in voxels of 1 mm, and the same with its intensities
    inverted, turned by 10°, in voxels of 2 mm.
    """
    from scipy.ndimage import affine_transform, zoom

    from jaxreg.geometry.grid import Volume
    from jaxreg.io.images import read_image, write
    from jaxreg.models.release import SHIPPED

    brain = read_image(SHIPPED / "template.nii.gz")
    values = brain.array.astype(np.float32)
    cosine, sine = np.cos(np.radians(10)), np.sin(np.radians(10))
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    middle = (np.array(values.shape) - 1) / 2
    inverted = np.where(values > 0.05 * values.max(), 1.1 * values.max() - values, 0)
    offset: Any = middle - turn @ middle
    turned = affine_transform(inverted, turn, offset, order=1)
    fine = np.asarray(zoom(values, 2, order=1)).clip(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        half = brain.affine @ np.diag([0.5, 0.5, 0.5, 1])
        write(folder / "fixed_T1w.nii.gz", Volume(fine, half))
        write(folder / "moving_T2w.nii.gz", Volume(turned.astype(np.float32), brain.affine))
        argv = [sys.executable, "-m", "jaxreg", "register", "fixed_T1w.nii.gz"]
        argv += ["moving_T2w.nii.gz", "--out=out", "--overwrite", "--quiet"]
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run(argv, check=True, cwd=folder)
            seconds = time.perf_counter() - start
        measured = json.loads((folder / "out" / "timings.json").read_text())
    return {"ms": 1e3 * seconds, "host_gb": measured.get("peak_gigabytes", float("nan"))}


def main() -> None:
    """Measure, print a Markdown table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("jaxreg",), help="leave VoxelMorph out")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    results: dict[str, Any] = {"device": jax.devices()[0].device_kind, "limits": limits()}
    print({name: round(value, 2) for name, value in results["limits"].items()}, flush=True)
    results["same_bits"] = same_bits()
    print(f"two steps from one state give the same bits: {results['same_bits']}", flush=True)
    print(
        "| job | size | type | ms | share of matrix rate | share of copy rate | GB | compile s |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    others = {} if arguments.only else voxelmorph_jobs()
    for name, job in (others | jaxreg_jobs()).items():
        if time.perf_counter() - begun > arguments.seconds:
            print(f"| {name} | left out: the time is up | | | | |")
            continue
        row = results[name] = job()
        rate = results["limits"][f"{name.rsplit(' ', 1)[1]}_tflops"]
        nothing = float("nan")
        share = row.get("gflop", nothing) / row["ms"] / rate
        copied = row.get("gbyte", nothing) / row["ms"] / results["limits"]["copy_tb_s"]
        print(
            f"| {name} | {row['ms']:.2f} | {share:.3f} | {copied:.3f} "
            f"| {row['memory_gb']:.2f} | {row.get('compile_s', 0):.1f} |",
            flush=True,
        )
        save(arguments.out, results)
    if time.perf_counter() - begun < arguments.seconds and register_is_possible():
        row = results["register"] = register_job()
        print(f"jaxreg register, shell to report: {row['ms'] / 1e3:.1f} s")
    else:
        print("jaxreg register: left out (the time is up, or not all dependencies are installed)")
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if peak is not None:
        results["peak_gb"] = peak / 1e9
        print(f"largest memory in use in this process: {peak / 1e9:.2f} GB")
    save(arguments.out, results)


def save(path: Path | None, results: dict[str, Any]) -> None:
    """Write what was measured so far, if there is a place for it."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def register_is_possible() -> bool:
    """Whether what `jaxreg register` imports is installed."""
    needed = "nibabel", "SimpleITK", "scipy", "tyro", "jinja2", "matplotlib"
    return all(importlib.util.find_spec(name) for name in needed)


if __name__ == "__main__":
    main()
