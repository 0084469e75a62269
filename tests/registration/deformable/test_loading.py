"""Programs that are made ready beside other work: they are those that the registration runs."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import model_of

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import write
from jaxreg.losses.similarity import make_similarity
from jaxreg.pair import Pair
from jaxreg.registration.deformable.deformation import deformations, load_programs
from jaxreg.registration.deformable.loading import _expected_pair, loading, programs_of
from jaxreg.registration.deformable.method import Method, load_method
from jaxreg.registration.inputs import Subject, read_subject
from jaxreg.segmentation.template import GRID

SHAPE = (17, 18, 16)


def method_of(*, exchanged: bool) -> Method:
    """Two passes of a network with flips, then steps that know segmentations."""
    model = model_of(flip=True)
    objective = dataclasses.replace(ObjectiveConfig(loss="lncc"), label_weight=4.0)
    return Method(
        model=model,
        objective=objective,
        similarity=make_similarity(objective, ("fixed", "moving")),
        spacing_mm=(2.0, 2.0, 2.0),
        domains=("T1w", "T2w"),
        exchanged=exchanged,
        passes=2,
        steps=3,
        rate=0.02,
        lam=0.5,
        weights_sha256=None,
    )


def pair_of(*, ignored: bool) -> Pair:
    rng = np.random.default_rng(0)
    fixed, moving = (jnp.asarray(rng.random((*SHAPE, 1)), jnp.float32) for _ in range(2))
    brain = jnp.ones(SHAPE, bool)
    labels = jnp.asarray(rng.integers(0, 4, SHAPE), jnp.uint8)
    ignore = jnp.zeros(SHAPE, bool) if ignored else None
    return Pair(
        fixed, moving, brain, brain, ignore, None, fixed_labels=labels, moving_labels=labels
    )


@pytest.fixture
def side(tmp_path) -> Subject:
    path = tmp_path / "image_T1w.nii.gz"
    image = np.random.default_rng(0).random((12, 10, 14), np.float32)
    write(path, Volume(np.pad(image, 4), np.diag([8.0, 8, 8, 1])))
    return read_subject("fixed", path, mask=None, ignore=None, labels=None)


@pytest.mark.parametrize(("exchanged", "ignored"), [(False, True), (True, False)])
def test_what_was_made_ready_is_what_runs(exchanged, ignored, caplog):
    method, pair = method_of(exchanged=exchanged), pair_of(ignored=ignored)
    shapes = jax.eval_shape(lambda: pair)
    assert list(load_programs(method, shapes)) == ["steps", "network", "measures"]
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        deformations(method, pair, [method.lam])
    compiled = [r.message for r in caplog.records if "Finished XLA compilation" in r.message]
    large = ("_some_steps", "_at_one_lam", "moved_image", "_measured")
    assert not [line for line in compiled if any(name in line for name in large)]


def test_an_error_of_the_block_is_not_held_up():
    """Refusals come at once: what has not begun to load is left."""
    begun = []

    def slow():
        for k in range(1000):
            begun.append(k)
            time.sleep(0.01)
            yield "program"

    with pytest.raises(ValueError, match="no brain"), loading(slow()):
        raise ValueError("no brain")
    assert len(begun) < 1000


def test_an_error_of_the_loading_is_not_lost():
    def broken():
        yield "program"
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"), loading(broken()):
        pass


def test_nothing_is_loaded_where_the_images_decide_on_the_grid(side):
    method = method_of(exchanged=False)  # a model without a template
    assert list(programs_of(method, RegisterConfig(), side, side)) == []
    never = RegisterConfig(extract="never")
    shipped = load_method(never)
    assert list(programs_of(shipped, never, side, side)) == []


def test_the_pair_that_is_expected_is_the_one_that_comes(side):
    """Of the bundled network: the grid of its training, with labels."""
    config = RegisterConfig()
    pair = _expected_pair(load_method(config), config, side, side._replace(ignore=side.mask))
    assert pair is not None and pair.fixed_labels is not None and pair.moving_ignore is not None
    assert pair.fixed.shape[:3] == GRID.shape and pair.fixed_ignore is None
