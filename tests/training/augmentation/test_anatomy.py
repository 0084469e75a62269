"""Moving subjects of a mixed anatomy: moved by a part of a velocity, all of a subject alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jaxreg.configuration.augmentation import AugmentationConfig
from jaxreg.errors import InputError
from jaxreg.pair import Pair
from jaxreg.training.augmentation.anatomy import AWAY, TOWARDS, with_mixed_anatomy

SHAPE = (20, 16, 12)
STEP = (1.5, -1.0, 0.5)  # of the velocity, in voxels of its grid, which are two of the images


@pytest.fixture(scope="module")
def pair():
    """Everything that a pair can hold; brains that touch no border."""
    inside = jnp.zeros(SHAPE, bool).at[5:-5, 4:-4, 3:-3].set(True)
    labels = jnp.broadcast_to((jnp.arange(20) // 4).astype(jnp.uint8)[:, None, None], SHAPE)
    images = [
        jax.random.uniform(jax.random.key(seed), (*SHAPE, 1), minval=0.2) * inside[..., None]
        for seed in range(3)
    ]
    ignore = jnp.zeros(SHAPE, bool).at[8:12, 6:10, 4:8].set(True)
    made = jnp.asarray(True)
    return Pair(
        images[0], images[1], inside, inside, ignore, ignore, images[2], labels, labels, made
    )


def mixed(pair, seed, share, scale=1.0):
    def velocity_of(pair):
        return scale * jnp.broadcast_to(jnp.asarray(STEP), (10, 8, 6, 3))

    @jax.jit
    def run(key, pair):
        return with_mixed_anatomy(key, pair, share, velocity_of, squarings=5)

    return run(jax.random.key(seed), pair)


def test_nothing_moves_in_the_other_share(pair):
    for name, own, other in zip(Pair._fields, mixed(pair, 0, 0.0), pair, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5, err_msg=name)
    moved = [
        not np.allclose(mixed(pair, seed, 0.5).moving, pair.moving, atol=1e-3) for seed in range(16)
    ]
    assert 3 < sum(moved) < 13


def test_a_part_of_the_velocity_moves_all_of_the_moving_subject_and_nothing_of_the_fixed(pair):
    parts = []
    for seed in range(12):
        found = mixed(pair, seed, 1.0)
        for name in ("fixed", "fixed_mask", "fixed_labels", "fixed_ignore", "taught"):
            np.testing.assert_array_equal(getattr(found, name), getattr(pair, name))
        key = jax.random.split(jax.random.key(seed))[1]
        part = float(jax.random.uniform(key, minval=-AWAY, maxval=TOWARDS))
        parts.append(part)
        shift = 2 * part * np.asarray(STEP)
        points = np.indices(SHAPE) + shift[:, None, None, None]

        def scipy(values, points=points, order=1):
            values = np.asarray(values, np.float64)
            return map_coordinates(values, points, order=order, mode="grid-constant")

        weight = scipy(pair.moving_mask)
        mask = np.asarray(found.moving_mask)
        clear = np.abs(weight - 0.5) > 1e-3  # rounding decides at the threshold
        np.testing.assert_array_equal(mask[clear], weight[clear] > 0.5)
        for name in ("moving", "moving_in_fixed_contrast"):
            wanted = scipy(getattr(pair, name)[..., 0]) / np.maximum(weight, 0.5)
            got = np.asarray(getattr(found, name))[..., 0]
            np.testing.assert_allclose(got, np.where(mask, wanted, 0), atol=1e-3)
        for name in ("moving_labels", "moving_ignore"):
            same = np.asarray(getattr(found, name)) == scipy(getattr(pair, name), order=0)
            assert same[mask].mean() > 0.97
    assert min(parts) < -0.4 and max(parts) > 0.2


def test_no_gradient_goes_through_the_mixture(pair):
    def total(scale):
        return jnp.sum(mixed(pair, 3, 1.0, scale=scale).moving)

    assert float(jax.grad(total)(1.0)) == 0
    assert float(total(1.0)) != float(total(0.5))


def test_no_share_is_refused():
    with pytest.raises(InputError, match="--mixed-anatomy-fraction: expected a share in"):
        AugmentationConfig(mixed_anatomy_fraction=1.5)
