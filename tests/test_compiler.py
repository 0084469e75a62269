"""The installed XLA computes on a CPU what it is asked to: versions that did not, and how it shows.

A release that fails here belongs among the excluded ones of pyproject.toml.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

RANK_7 = """
first, second = jax.random.normal(jax.random.key(0), (2, 3, 1, 2, 2, 8, 8, 8))
jax.block_until_ready(jax.jit(lambda a, b: (a * b).sum(3))(first, second))
"""
RANK_8 = """
first, second = jnp.ones((10, 4, 6)), jnp.ones((10, 4, 6, 9, 9, 9, 9, 9))
product = lambda a, b: jnp.log((a[..., None, None, None, None, None] * b).sum(2))
jax.block_until_ready(jax.jit(product)(first, second))
"""


@pytest.mark.parametrize("rows", [32_768, 32_769, 40_000])
def test_a_product_and_its_sum_are_right_in_the_last_row(rows):
    """Version 0.10.2 of jaxlib mistakes every row beyond 32,768 (jax-ml/jax#39103)."""
    matrix, vectors = np.eye(3, dtype=np.float32), np.zeros((rows, 3), np.float32)
    vectors[:, 0] = np.arange(rows)
    squares = jax.jit(jax.vmap(lambda vector: jnp.sum((matrix @ vector) ** 2)))(vectors)
    np.testing.assert_array_equal(squares, vectors[:, 0] ** 2)


def test_a_column_set_in_a_constant_is_right():
    """Before jaxlib 0.8.2 a constant inside of a jitted function gave other values (#33479)."""
    columns, rows = jax.random.normal(jax.random.key(0), (10, 8)), jnp.array([1, 3, 5, 7])

    def chosen(column):
        values = jnp.zeros(10).at[:10].set(column)
        return jnp.zeros(10).at[rows].set(values[rows] + 0.025 * jnp.zeros(10)[rows])

    every = jax.jit(lambda: jax.vmap(chosen, in_axes=1, out_axes=1)(columns))()
    expected = np.zeros((10, 8), np.float32)
    expected[np.asarray(rows)] = np.asarray(columns)[np.asarray(rows)]
    np.testing.assert_array_equal(every, expected)


@pytest.mark.parametrize("program", [RANK_7, RANK_8], ids=["0.10.2", "0.11.0"])
def test_a_sum_over_many_axes_does_not_crash(program):
    """Versions 0.10.2 and 0.11.0 of jaxlib end the process (#40412, #39257)."""
    script = f"import jax, jax.numpy as jnp\n{program}\nprint('whole')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "whole"), done.stderr
