"""The programs of the deformable part made ready in a thread, while the brains are found.

Tracing a program and fetching it from the cache on disk keeps one core busy for seconds in a new
process; compiling it for the first time takes a minute. Nothing of that needs the images: the
network grid of a segmented pair has the shape of the training grid.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from jaxreg.configuration.registration import AUTO, RegisterConfig
from jaxreg.geometry.grid import grid_of
from jaxreg.pair import Pair
from jaxreg.registration.deformable.deformation import load_programs
from jaxreg.registration.deformable.method import Method
from jaxreg.registration.inputs import Subject


@contextmanager
def loading(programs: Iterator[str]) -> Iterator[None]:
    """Make programs ready, one after the other, beside what the block does.

    An error of the block comes at once, without what has not begun to load. An error of the loading
    comes after the block.
    """
    stopped = threading.Event()

    def load() -> None:
        for _ in programs:
            if stopped.is_set():
                return

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading")
    try:
        loaded = pool.submit(load)
        yield
        loaded.result()
    finally:
        stopped.set()
        pool.shutdown(wait=False)


def programs_of(
    method: Method, config: RegisterConfig, fixed: Subject, moving: Subject
) -> Iterator[str]:
    """The programs of the deformable part of a pair; none where the images decide on the grid."""
    pair = _expected_pair(method, config, fixed, moving)
    return iter(()) if pair is None else load_programs(method, pair)


def _expected_pair(
    method: Method, config: RegisterConfig, fixed: Subject, moving: Subject
) -> Pair | None:
    """Shapes and types of the pair on the network grid; None where they depend on the images."""
    template = None if method.model is None else method.model.template
    if config.transform != "deformable" or config.extract == "never" or config.lam == AUTO:
        return None
    if template is None:
        return None
    shape = grid_of(template).shape
    ignored = [side.ignore is not None for side in (fixed, moving)]
    labelled = method.objective.label_weight > 0

    def blank() -> Pair:
        image, mask = jnp.zeros((*shape, 1)), jnp.zeros(shape, bool)
        ignores = [mask if there else None for there in ignored]
        labels = jnp.zeros(shape, jnp.uint8) if labelled else None
        return Pair(image, image, mask, mask, *ignores, fixed_labels=labels, moving_labels=labels)

    return jax.eval_shape(blank)
