"""A trained registration network, rebuilt from a run's own configuration."""

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxreg.configuration.registration import Defaults
from jaxreg.configuration.serialization import from_json
from jaxreg.configuration.training import NetworkConfig, RegistrationConfig, channel_numbers
from jaxreg.data.label_codes import CLASSES
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io import images
from jaxreg.losses.similarity import FeatureNetwork, init_projections
from jaxreg.models.checkpoint import Checkpoints, open_run, parameters_sha256
from jaxreg.networks.autoencoder import DEFAULT_CHANNELS, Encoder
from jaxreg.networks.segmentation_unet import SegmentationEncoder, SegmentationUNet
from jaxreg.networks.velocity_unet import VelocityUNet
from jaxreg.stored_programs import stored_program, stored_shapes

CHUNK_BYTES = 1_500_000_000
"""Memory that one chunk of λ may take in the network, roughly."""
TEMPLATE = "template.nii.gz"
"""Beside the checkpoints of a run, and in a release."""
_BYTES_PER_VOXEL = 400
"""Of a network whose first level has 16 channels."""
_TINY = (1, 16, 16, 16, 1)
_SEGMENTATION = "segmentation-"


class Model(NamedTuple):
    """Configuration and parameters of a trained registration network.

    `params["network"]` are the network's; `params["projections"]` and `encoders` are there for the
    contrastive losses, whose encoders have `encoder_stem`. `step` is the training step,
    `spacing_mm` the voxel size of the training grid, `folder` where the model was read. `template`
    is the mean image of training subjects in the first domain, on that grid (uint8, 0 outside the
    brain), None for runs of versions that kept none.
    """

    config: RegistrationConfig
    params: dict[str, Any]
    encoders: dict[str, Any]
    step: int
    spacing_mm: tuple[float, float, float]
    encoder_stem: str | None = None
    defaults: Defaults = Defaults()
    folder: Path | None = None
    template: Volume | None = None

    @property
    def sha256(self) -> str:
        """Hash of all parameters and of the template, by which a model is known."""
        parts: dict[str, Any] = {"params": self.params, "encoders": self.encoders}
        if self.template is not None:
            parts["template"] = self.template._asdict()
        return parameters_sha256(parts)


def network_of(config: NetworkConfig) -> VelocityUNet:
    """The velocity network of a configuration."""
    return VelocityUNet(
        channel_numbers(config.channels),
        stem=config.stem,
        conditioning=config.conditioning,
        dtype=jnp.dtype(config.dtype),
    )


def init_params(key: jax.Array, config: RegistrationConfig, encoder: FeatureNetwork | None) -> dict:
    """Fresh trainable parameters: the network's, and projections where the loss needs them."""
    network_key, projection_key = jax.random.split(key)
    image, lam = jnp.zeros(_TINY), jnp.zeros(1)
    network = network_of(config.network)
    init = jax.jit(network.init)  # one program; step by step it takes 0.3 GB and seconds more
    params = {"network": init(network_key, image, image, lam)["params"]}
    if encoder is not None:
        domains = config.cohort.domain_pair
        params["projections"] = init_projections(projection_key, domains, encoder.channels)
    return params


def parameter_shapes(config: RegistrationConfig, encoder: FeatureNetwork | None) -> Any:
    """Shapes and types of the trainable parameters: to fill a network with numbers takes longer."""
    return stored_shapes(
        "parameters of a registration network",
        (repr(config.network), config.cohort.domain_pair, repr(encoder)),
        lambda: jax.eval_shape(lambda key: init_params(key, config, encoder), jax.random.key(0)),
    )


def encoder_of(stem: str) -> FeatureNetwork:
    """The encoder of stage 1 with a stem, or the segmentation network that `stem_of` names."""
    if stem.startswith(_SEGMENTATION):
        channels = tuple(int(n) for n in stem.removeprefix(_SEGMENTATION).split("-"))
        return SegmentationEncoder(SegmentationUNet(channels, CLASSES))
    return Encoder(stem, DEFAULT_CHANNELS[stem])


def stem_of(channels: tuple[int, ...]) -> str:
    """The stem by which a run remembers a segmentation network of some channels as its encoder."""
    return _SEGMENTATION + "-".join(map(str, channels))


def init_encoders(domains: tuple[str, ...], stem: str) -> dict[str, Any]:
    """Parameters of the right structure for each domain's encoder; values are arbitrary."""
    encoder = encoder_of(stem)
    params = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros(_TINY))["params"]
    return {domain: params for domain in dict.fromkeys(domains)}


def load_run(workdir: Path) -> Model:
    """The model at a registration run's newest checkpoint.

    Raises:
        InputError: no such run, or a checkpoint that does not fit its configuration.
    """
    checkpoints, meta = open_run(workdir, "reg")
    config = from_json(RegistrationConfig, meta.config)
    encoder, encoders, stem = None, {}, None
    if config.objective.spec.contrastive:
        stem = meta.identity["encoder_stem"]
        encoder = encoder_of(stem)
        encoders = init_encoders(config.cohort.domain_pair, stem)
    trainable = parameter_shapes(config, encoder)
    params = checkpoints.params(meta.step, {"trainable": trainable, "frozen": encoders})
    x, y, z = meta.identity["spacing_mm"]
    params, frozen = params["trainable"], params["frozen"]
    template = read_template(workdir)
    spacing_mm = (x, y, z)
    return Model(
        config, params, frozen, meta.step, spacing_mm, stem, folder=workdir, template=template
    )


def read_template(folder: Path) -> Volume | None:
    """The template of a run or a release, None where there is none.

    Raises:
        InputError: it is damaged, or no template.
    """
    path = folder / TEMPLATE
    if not path.is_file():
        return None
    template = images.read(path)
    if template.array.dtype != np.uint8 or not template.array.any():
        raise InputError(f"{path}: expected a template as training writes it, of bytes above 0.")
    return template


def velocities(
    network_params: Any,
    fixed: Float[Array, "x y z 1"],
    moving: Float[Array, "x y z 1"],
    lams: Sequence[float],
    *,
    config: NetworkConfig,
) -> Iterator[tuple[list[float], Float[Array, "_ u v w 3"]]]:
    """(λs, velocities of one pair at each, in voxels of the half-resolution grid), in chunks.

    What the encoder makes of the pair is computed once. The velocities of the last chunk are filled
    up with those of its last λ, so that one program serves all. A single λ has a program of its own
    for the whole network, which is a tenth faster than two in a row; the bits are the same.
    """
    x, y, z = fixed.shape[:3]
    if len(lams) == 1:
        lam = jnp.asarray(lams[0], jnp.float32)
        yield list(lams), _at_one_lam(network_params, fixed, moving, lam, config=config)
        return
    size = min(chunk_size((x, y, z), config), len(lams))
    features = _encoded(network_params, fixed, moving, config=config)
    for start in range(0, len(lams), size):
        chunk = list(lams[start : start + size])
        filled = jnp.asarray(chunk + chunk[-1:] * (size - len(chunk)), jnp.float32)
        yield chunk, _decoded(network_params, features, filled, config=config, shape=(x, y, z))


def load_velocities(network_params: Any, image: Any, *, config: NetworkConfig) -> Any:
    """Make ready the program of `velocities` at one λ, for images of the shape of `image`.

    It is compiled, or fetched from the cache on disk. Returns the shape of a velocity.
    """
    lam = jax.ShapeDtypeStruct((), jnp.float32)
    found = _at_one_lam.load(network_params, image, image, lam, config=config)
    return jax.ShapeDtypeStruct(found.shape[1:], jnp.float32)


def chunk_size(shape: tuple[int, int, int], config: NetworkConfig) -> int:
    """How many λ a network registers in one call on a grid."""
    voxels = shape[0] * shape[1] * shape[2]
    bytes_of_one = voxels * _BYTES_PER_VOXEL * channel_numbers(config.channels)[0] // 16
    return max(1, min(CHUNK_BYTES // max(bytes_of_one, 1), 11))


@stored_program(static_argnames=("config",))
def _at_one_lam(network_params, fixed, moving, lam, *, config: NetworkConfig):
    variables = {"params": network_params}
    velocity = network_of(config).apply(variables, fixed[None], moving[None], lam[None])
    assert isinstance(velocity, jax.Array)
    return velocity


@stored_program(static_argnames=("config",))
def _encoded(network_params, fixed, moving, *, config: NetworkConfig):
    variables = {"params": network_params}
    return network_of(config).apply(variables, fixed[None], moving[None], method="encode")


@stored_program(static_argnames=("config", "shape"))
def _decoded(network_params, features, lams, *, config: NetworkConfig, shape: tuple[int, int, int]):
    def at(lam):
        variables = {"params": network_params}
        velocity = network_of(config).apply(variables, features, lam[None], shape, method="decode")
        assert isinstance(velocity, jax.Array)
        return velocity[0]

    return over_lams(at, lams)


def over_lams(function, values: Any) -> Any:
    """A function of what belongs to one λ for all of them: side by side, but on a CPU in turns.

    That is a third faster there: what a layer leaves is still in the cache when the next one reads
    it.
    """
    return jax.lax.platform_dependent(
        values, cpu=functools.partial(jax.lax.map, function), default=jax.vmap(function)
    )


def newest_run(parent: Path) -> Path | None:
    """The registration workdir below `parent`, at any depth, whose newest checkpoint is the last.

    A run without a whole checkpoint is named on standard error and passed over.
    """
    # `os.walk` passes over a folder that a training removes meanwhile; `Path.glob` raises.
    with_steps = (f for f, inside, _ in os.walk(parent) if any(map(str.isdigit, inside)))
    runs = [Path(f).parent for f in with_steps if Path(f).name == "checkpoints"]
    for run in sorted(runs, key=_written, reverse=True):
        try:
            if _is_registration(run):
                return run
        except InputError as error:
            print(f"{run}: passed over ({error})", file=sys.stderr)
    return None


def _written(run: Path) -> float:
    steps = [int(name) for name in os.listdir(run / "checkpoints") if name.isdigit()]
    return (run / "checkpoints" / str(max(steps))).stat().st_mtime


def _is_registration(run: Path) -> bool:
    meta = Checkpoints(run).newest()
    return meta is not None and meta.stage == "reg"
