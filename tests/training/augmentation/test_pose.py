"""Pairs in a random pose: what SciPy gives, everything of a subject alike, sizes as promised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from jaxreg.configuration.augmentation import AugmentationConfig
from jaxreg.errors import InputError
from jaxreg.pair import Pair
from jaxreg.training.augmentation.pose import (
    APART,
    LOG_SCALE,
    SHIFT_MM,
    TURN_DEGREES,
    posed,
    random_affine,
)

SHAPE, SPACING_MM = (24, 20, 16), (2.0, 3.0, 2.5)


def volume(seed, channel=True):
    values = jax.random.uniform(jax.random.key(seed), SHAPE, minval=0.2)
    return values[..., None] if channel else values


@pytest.fixture(scope="module")
def pair():
    """Everything that a pair can hold; brains that touch no border."""
    inside = jnp.zeros(SHAPE, bool).at[5:-4, 4:-5, 3:-4].set(True)
    labels = jnp.broadcast_to((jnp.arange(24) // 4).astype(jnp.uint8)[:, None, None], SHAPE)
    images = [volume(seed) * inside[..., None] for seed in range(3)]
    ignore = jnp.zeros(SHAPE, bool).at[8:12, 8:12, 6:10].set(True)
    fixed, moving, in_fixed_contrast = images
    made = jnp.asarray(True)
    return Pair(
        fixed, moving, inside, inside, ignore, ignore, in_fixed_contrast, labels, labels, made
    )


def run(pair, seed, share):
    return jax.jit(lambda key, pair: posed(key, pair, share, spacing_mm=SPACING_MM))(
        jax.random.key(seed), pair
    )


def test_nothing_moves_in_the_other_share(pair):
    found = run(pair, 0, 0.0)
    for name, own, other in zip(Pair._fields, found, pair, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5, err_msg=name)
    some = jax.jit(lambda key, pair: posed(key, pair, 0.5, spacing_mm=SPACING_MM).fixed)
    keys = jax.random.split(jax.random.key(7), 16)
    moved = [not np.allclose(some(key, pair), pair.fixed, atol=1e-4) for key in keys]
    assert 3 < sum(moved) < 13


def test_images_masks_and_labels_are_those_of_scipy(pair):
    key = jax.random.key(4)
    _, both_key, apart_key = jax.random.split(key, 3)
    shape = {"shape": SHAPE, "spacing_mm": SPACING_MM}
    both = np.asarray(random_affine(both_key, jnp.float32(1), **shape), np.float64)
    apart = np.asarray(random_affine(apart_key, jnp.float32(APART), **shape), np.float64)
    found = run(pair, 4, 1.0)

    def scipy(values, matrix, order=1):
        values = np.asarray(values, np.float64)
        mode = "grid-constant"
        return affine_transform(values, matrix[:3, :3], matrix[:3, 3], order=order, mode=mode)

    for side, matrix in (("fixed", both), ("moving", both @ apart)):
        weight = scipy(getattr(pair, f"{side}_mask"), matrix)
        clear = np.abs(weight - 0.5) > 1e-3  # rounding decides at the threshold
        mask = np.asarray(getattr(found, f"{side}_mask"))
        np.testing.assert_array_equal(mask[clear], weight[clear] > 0.5)
        images = [side] if side == "fixed" else [side, "moving_in_fixed_contrast"]
        for name in images:
            wanted = scipy(getattr(pair, name)[..., 0], matrix) / np.maximum(weight, 0.5)
            got = np.asarray(getattr(found, name))[..., 0]
            np.testing.assert_allclose(got, np.where(mask, wanted, 0), atol=2e-4)
        for name in (f"{side}_labels", f"{side}_ignore"):
            got = np.asarray(getattr(found, name))
            assert (got == scipy(getattr(pair, name), matrix, order=0)).mean() > 0.99
    assert found.fixed_labels is not None and found.fixed_labels.dtype == jnp.uint8


def test_a_random_affine_turns_shifts_and_stretches_in_millimetres():
    keys = jax.random.split(jax.random.key(0), 300)
    shape = {"shape": SHAPE, "spacing_mm": SPACING_MM}
    sample = jax.jit(jax.vmap(lambda k: random_affine(k, jnp.float32(1), **shape)))
    spacing = np.asarray(SPACING_MM)
    centre = (np.asarray(SHAPE) - 1) / 2
    angles, shifts, scales = [], [], []
    for matrix in np.asarray(sample(keys), np.float64):
        linear = matrix[:3, :3] * spacing[:, None] / spacing
        scales.append(np.linalg.norm(linear, axis=0))
        turn = linear / scales[-1]
        np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-5)
        angles.append(np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)))
        shifts.append((matrix[:3, :3] @ centre + matrix[:3, 3] - centre) * spacing)
    assert 0.6 * TURN_DEGREES < max(angles) <= TURN_DEGREES * 3**0.5 + 1e-3
    assert 0.9 * SHIFT_MM < np.abs(shifts).max() <= SHIFT_MM + 1e-3
    assert 0.9 * LOG_SCALE < np.abs(np.log(scales)).max() <= LOG_SCALE + 1e-5
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.2 * SHIFT_MM
    still = random_affine(jax.random.key(1), jnp.float32(0), **shape)
    np.testing.assert_allclose(still, np.eye(4), atol=1e-5)


def test_no_share_is_refused():
    with pytest.raises(
        InputError, match=r"--pose-fraction: expected a share in \[0, 1\], got -1.0"
    ):
        AugmentationConfig(pose_fraction=-1.0)
