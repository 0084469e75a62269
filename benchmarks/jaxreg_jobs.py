"""What is measured of jaxreg: each job is made for a shape and waits for its own result."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxreg.configuration.objective import CONTRASTIVE_LOSSES, ObjectiveConfig
from jaxreg.configuration.training import (
    NetworkConfig,
    OptimizerConfig,
    RegistrationConfig,
    Stem,
)
from jaxreg.data.cohort import read_cohort
from jaxreg.data.pipeline import pair_batches
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.evaluation.sweep import displacements
from jaxreg.losses.similarity import FeatureExtractor, Masks, init_projections, make_similarity
from jaxreg.models.model import (
    encoder_of,
    init_encoders,
    init_params,
    network_of,
)
from jaxreg.pair import Pair
from jaxreg.registration.deformable.optimization import zero_velocity
from jaxreg.spatial import exponentiate, warp
from jaxreg.training.augmentation.flip import mirrored
from jaxreg.training.registration import sample_loss
from jaxreg.training.step import TrainState, make_optimizer, make_step

Shape = tuple[int, int, int]
DOMAINS = ("T1w", "T2w")


def pair(shape: Shape) -> Pair:
    """Two noise images inside an ellipsoid that fills the grid as a brain does."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    mask = jnp.asarray(sum(a**2 for a in axes) < 0.9)
    fixed, moving = (jnp.asarray(rng.random((*shape, 1), np.float32)) for _ in range(2))
    inside = mask[..., None].astype(jnp.float32)
    return Pair(fixed * inside, moving * inside, mask, mask)


def _config(loss="nce_mi", stem: Stem = "fold") -> RegistrationConfig:
    return RegistrationConfig(
        network=NetworkConfig(stem=stem), objective=ObjectiveConfig(loss=loss)
    )


def training_step(shape: Shape, *, loss: str, stem: Stem = "fold") -> Callable[[], None]:
    """A step of stage 2 on one pair: loss, gradient, Adam."""
    config = _config(loss, stem)
    contrastive = loss in CONTRASTIVE_LOSSES
    encoder = encoder_of("fold") if contrastive else None
    frozen = init_encoders(DOMAINS, "fold") if contrastive else {}
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    params = init_params(jax.random.key(0), config, encoder)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    spacing_mm = (2.0, 2.0, 2.0)  # read by --pose-fraction alone
    step = make_step(sample_loss(config, encoder, spacing_mm=spacing_mm), optimizer, mesh, 0)
    batch = {k: v[None] for k, v in pair(shape)._asdict().items() if v is not None}
    # Placed as training places them, so that the second step finds the first one's program.
    everywhere, rows = (NamedSharding(mesh, spec) for spec in (P(), P("data")))
    batch = jax.device_put(batch, rows)
    frozen = jax.device_put(frozen, everywhere)
    box = [jax.device_put(state, everywhere)]

    def run() -> None:
        box[0], metrics = step(box[0], frozen, batch)
        jax.block_until_ready(metrics)

    return run


def network(shape: Shape, *, gradient: bool) -> Callable[[], None]:
    """The velocity of one pair at one λ by the network alone, or the gradient of its square."""
    config = _config()
    params = init_params(jax.random.key(0), config, None)["network"]
    two, lam = pair(shape), jnp.full(1, 0.5)

    def answer(params, fixed, moving):
        apply = network_of(config.network).apply
        velocity = apply({"params": params}, fixed[None], moving[None], lam)
        assert isinstance(velocity, jax.Array)
        return velocity

    function = jax.jit(answer)
    if gradient:
        function = jax.jit(jax.grad(lambda *inputs: jnp.sum(answer(*inputs) ** 2)))
    return lambda: _wait(function(params, two.fixed, two.moving))


def batch(shape: Shape) -> Callable[[], None]:
    """The next pair of the training data, mirrored or not, from volumes in memory."""
    with tempfile.TemporaryDirectory() as scratch:
        subjects = {"train": 4}
        folder = write_phantom_cohort(Path(scratch) / "cohort", shape=shape, subjects=subjects)
        cohort = read_cohort(folder)
        names = [cohort.members("train", d) for d in DOMAINS]
        keys = [(p, d) for p in names[0] for d in DOMAINS]
        volumes = Volumes(cohort, keys)
    batches = pair_batches(volumes, DOMAINS, *names, seed=0, batch_size=1, flip=mirrored)

    def run() -> None:
        for _ in range(10):  # the pipeline prepares a few in advance
            next(batches)

    return run


def sweep(shape: Shape, *, count: int) -> Callable[[], None]:
    """Network, integration and the moved images of one pair at `count` values of λ."""
    config = _config()
    params = init_params(jax.random.key(0), config, None)["network"]
    two = pair(shape)
    lams = [float(v) for v in np.linspace(0, 1, count)]
    moved = jax.jit(lambda image, u: jax.lax.map(lambda one: warp(image, one), u))

    def run() -> None:
        for _, displacement, _ in displacements(
            config.network, params, two.fixed, two.moving, lams, squarings=7
        ):
            jax.block_until_ready(moved(two.moving, displacement))

    return run


def _smooth(shape: Shape) -> jax.Array:
    rng = np.random.default_rng(1)
    coarse = rng.normal(size=(*[-(-n // 8) for n in shape], 3)).astype(np.float32)
    return 2 * jax.image.resize(jnp.asarray(coarse), (*shape, 3), "linear")


def warp_image(shape: Shape, *, gradient: bool) -> Callable[[], None]:
    """An image warped by a smooth displacement of a few voxels."""
    moving, displacement = pair(shape).moving, _smooth(shape)
    function = jax.jit(warp)
    if gradient:
        function = jax.jit(jax.grad(lambda m, u: jnp.sum(warp(m, u) ** 2), argnums=(0, 1)))
    return lambda: _wait(function(moving, displacement))


def integrate(shape: Shape) -> Callable[[], None]:
    """Scaling and squaring at half resolution, 7 squarings."""
    x, y, z, _ = zero_velocity(shape).shape
    velocity = _smooth((x, y, z))
    function = jax.jit(exponentiate)
    return lambda: _wait(function(velocity))


def encoder_features(shape: Shape) -> Callable[[], None]:
    """The feature maps of one image."""
    encoder = encoder_of("fold")
    params = init_encoders(("T1w",), "fold")["T1w"]
    function = jax.jit(lambda image: encoder.apply({"params": params}, image[None]))
    image = pair(shape).fixed
    return lambda: _wait(function(image))


def similarity(shape: Shape, *, loss: str, gradient: bool) -> Callable[[], None]:
    """A similarity of two images, or its gradient by the moved one."""
    config = dataclasses.replace(_config(loss).objective)
    encoder = encoder_of("fold") if loss in CONTRASTIVE_LOSSES else None
    features = None
    if encoder is not None:
        projections = init_projections(jax.random.key(1), DOMAINS, encoder.channels)
        features = FeatureExtractor(init_encoders(DOMAINS, "fold"), projections)
    two, key = pair(shape), jax.random.key(0)

    def value(moved, fixed, mask, features):
        function = make_similarity(config, DOMAINS, encoder=encoder, features=features)
        return function(key, fixed, moved, Masks(mask, mask, mask.astype(fixed.dtype)))[0]

    function = jax.jit(jax.grad(value) if gradient else value)
    return lambda: _wait(function(two.moving, two.fixed, two.fixed_mask, features))


def _wait(value) -> None:
    jax.block_until_ready(value)


JOBS: dict[str, Callable[[Shape], Callable[[], None]]] = {
    "inference": functools.partial(sweep, count=1),
    "training_step": functools.partial(training_step, loss="mse"),
    "training_step_nce_mi": functools.partial(training_step, loss="nce_mi"),
    "training_step_nce_mi_conv": functools.partial(training_step, loss="nce_mi", stem="conv"),
    "warp": functools.partial(warp_image, gradient=False),
    "warp_gradient": functools.partial(warp_image, gradient=True),
    "integration": integrate,
    "sweep_11": functools.partial(sweep, count=11),
    "encoder": encoder_features,
    "equal_network": functools.partial(network, gradient=False),
    "equal_network_gradient": functools.partial(network, gradient=True),
    "batch": batch,
}
for _loss in ("mi", "lmi", "ngf", "mind", "nce", "nce_mi", "lncc", "mse"):
    JOBS[f"loss_{_loss}"] = functools.partial(similarity, loss=_loss, gradient=False)
    JOBS[f"loss_{_loss}_gradient"] = functools.partial(similarity, loss=_loss, gradient=True)
