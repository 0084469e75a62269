"""The velocity of a registration: a map that ends at zero."""

import jax
import numpy as np

from jaxreg.registration.deformable.deformation import taper
from jaxreg.spatial import displacement_of


def test_a_tapered_map_ends_at_zero_and_keeps_the_inside():
    velocity = jax.random.normal(jax.random.key(0), (12, 10, 14, 3))
    tapered = jax.jit(taper)(velocity)
    np.testing.assert_array_equal(tapered[2:-2, 2:-2, 2:-2], velocity[2:-2, 2:-2, 2:-2])
    u = np.asarray(displacement_of(tapered, (24, 20, 28), squarings=7))
    for axis in range(3):
        for side in (0, -1):
            assert np.abs(np.take(u, side, axis=axis)).max() == 0
    np.testing.assert_allclose(tapered[1, 5, 5], velocity[1, 5, 5] / 2, rtol=1e-6)
