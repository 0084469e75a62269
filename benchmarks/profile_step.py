"""Where the time of a training step goes, against what the machine can do.

    python benchmarks/profile_step.py --shape=80,96,80 --loss=lncc

Prints a Markdown table: operations and bytes as XLA counts them (bytes: what every operation of the
compiled program reads and writes, cached or not; a loop's body counts once for each of its turns),
seconds, and shares of two measured ceilings, a large matrix product and a large copy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxreg import runtime

runtime.prepare()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxreg_jobs as jobs  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402

from jaxreg.configuration.objective import CONTRASTIVE_LOSSES  # noqa: E402
from jaxreg.losses.similarity import Masks, make_similarity  # noqa: E402
from jaxreg.models.model import init_params, network_of  # noqa: E402
from jaxreg.registration.deformable.optimization import zero_velocity  # noqa: E402
from jaxreg.spatial import (  # noqa: E402
    displacement_of,  # noqa: E402
    exponentiate,
    warp,
)


@dataclass(frozen=True)
class Config:
    """What is profiled."""

    shape: str = "80,96,80"
    """Voxels of the images."""
    loss: str = "lncc"
    """Similarity; not a contrastive one."""
    turns: int = 15
    """Runs of each part; the median is taken."""


class Part(NamedTuple):
    """A piece of the step: what it is called, its function, its arguments, turns of its loop."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    loops: int = 1


def main(config: Config) -> None:
    """Print the ceilings and the table."""
    x, y, z = (int(n) for n in config.shape.split(","))
    flops, copied = matrix_product(config.turns), copy(config.turns)
    print(f"matrix product {flops / 1e9:.0f} GFLOP/s, copy {copied / 1e9:.1f} GB/s\n")
    print("| part | GFLOP | GB | ms | GFLOP/s | of the product | GB/s | of the copy |")
    print("|---|---|---|---|---|---|---|---|")
    for part in parts((x, y, z), config.loss):
        compiled = jax.jit(part.function).lower(*part.arguments).compile()
        cost: Any = compiled.cost_analysis()
        seconds = median(lambda c=compiled, p=part: jax.block_until_ready(c(*p.arguments)), config)
        work, moved = cost["flops"] * part.loops, cost["bytes accessed"] * part.loops
        print(
            f"| {part.name} | {work / 1e9:.2f} | {moved / 1e9:.2f} | {1e3 * seconds:.1f} "
            f"| {work / seconds / 1e9:.0f} | {work / seconds / flops:.0%} "
            f"| {moved / seconds / 1e9:.1f} | {moved / seconds / copied:.0%} |",
            flush=True,
        )
    run = jobs.training_step((x, y, z), loss=config.loss)
    run()
    print(f"| whole step | | | {1e3 * median(run, config):.1f} | | | | |")


def parts(shape: tuple[int, int, int], loss: str) -> list[Part]:
    """The pieces of a step, each forward and with its gradient."""
    assert loss not in CONTRASTIVE_LOSSES
    config = jobs._config(loss)
    network, pair = network_of(config.network), jobs.pair(shape)
    params = init_params(jax.random.key(0), config, None)["network"]
    u, v, w = zero_velocity(shape).shape[:3]
    velocity, displacement = jobs._smooth((u, v, w)), jobs._smooth(shape)
    similarity = make_similarity(config.objective, jobs.DOMAINS)
    masks = Masks(pair.fixed_mask, pair.fixed_mask, pair.fixed_mask.astype(jnp.float32))

    def predict(params, fixed, moving):
        return network.apply({"params": params}, fixed[None], moving[None], jnp.ones(1))

    def compare(moved, fixed, masks):
        return similarity(jax.random.key(0), fixed, moved, masks)[0]

    def finish(velocity):
        return displacement_of(velocity, shape, squarings=0)

    made = [
        ("network", predict, (params, pair.fixed, pair.moving), 1),
        ("integration, 7 squarings", exponentiate, (velocity,), 7),
        ("to full resolution", finish, (velocity,), 1),
        ("warp", lambda u, m: warp(m, u), (displacement, pair.moving), 1),
        (loss, compare, (pair.moving, pair.fixed, masks), 1),
    ]
    found = []
    for name, function, arguments, loops in made:
        found.append(Part(name, function, arguments, loops))
        found.append(Part(f"{name}, with gradient", _gradient(function), arguments, loops))
    return found


def _gradient(function):
    """The gradient of the sum of squares by the first argument."""
    return jax.grad(lambda first, *rest: jnp.sum(jnp.square(function(first, *rest))))


def matrix_product(turns: int, size: int = 2048) -> float:
    """Operations a second in a product of two large matrices."""
    a = jnp.asarray(np.random.default_rng(0).random((size, size), np.float32))
    product = jax.jit(jnp.matmul)
    seconds = median(lambda: jax.block_until_ready(product(a, a)), Config(turns=turns))
    return 2 * size**3 / seconds


def copy(turns: int, size: int = 1 << 26) -> float:
    """Bytes a second, read and written, in a copy of a large array."""
    a = jnp.zeros(size, jnp.float32)
    scaled = jax.jit(lambda x: x * 2)
    seconds = median(lambda: jax.block_until_ready(scaled(a)), Config(turns=turns))
    return 8 * size / seconds


def median(run: Callable[[], Any], config: Config) -> float:
    """Median seconds of a run, after one that compiles."""
    run()
    spent = []
    for _ in range(config.turns):
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
