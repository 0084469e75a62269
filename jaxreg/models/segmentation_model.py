"""The segmentation networks that come with jaxreg, or two of one's own, as functions of an image.

A release holds `coarse.npz` and `fine.npz`, the parameters by name in half precision, and
`model.json`: the networks' channels, what they were trained on, and the SHA-256 of each file. A
training workdir holds the two runs, in folders `coarse` and `fine`.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxreg.configuration.serialization import from_json
from jaxreg.configuration.training import SegmentationConfig
from jaxreg.data.label_codes import CLASSES
from jaxreg.errors import InputError
from jaxreg.io.archives import DAMAGED_ARCHIVE
from jaxreg.models.checkpoint import leaves_by_name, open_run, parameters_sha256
from jaxreg.networks.segmentation_unet import SegmentationUNet
from jaxreg.stored_programs import stored_program, stored_shapes

SHIPPED = Path(__file__).parent / "weights" / "segmentation"
"""The networks that segment where no others are named."""
RESOLUTIONS = ("coarse", "fine")
_MODEL = "model.json"


class SegmentationModel(NamedTuple):
    """The parameters of both networks, their channels, and what identifies them."""

    channels: dict[str, tuple[int, ...]]
    params: dict[str, Any]
    sha256: dict[str, str]
    folder: Path

    def probabilities(
        self, resolution: str, image: Float[Array, "x y z 1"]
    ) -> Float[Array, "x y z k"]:
        """The probability of every class at each voxel of a normalised image."""
        return _probabilities(self.params[resolution], image, channels=self.channels[resolution])


@stored_program(static_argnames=("channels",))
def _probabilities(params, image, *, channels):
    network = SegmentationUNet(channels, CLASSES)
    scores = network.apply({"params": params}, image[None])
    assert isinstance(scores, jax.Array)
    return jax.nn.softmax(scores[0])


def is_segmentation_model(folder: Path) -> bool:
    """Whether a folder is a release or a training workdir of the segmentation networks."""
    return (folder / f"{RESOLUTIONS[0]}.npz").is_file() or (folder / RESOLUTIONS[0]).is_dir()


def read_segmentation_model(folder: Path) -> SegmentationModel:
    """The networks of a release, or of a training workdir at its runs' newest checkpoints.

    Raises:
        InputError: a file is missing or damaged, or is not the one whose hash is recorded.
    """
    if not (folder / _MODEL).exists() and (folder / RESOLUTIONS[0]).is_dir():
        return _of_runs(folder)
    try:
        described = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
        channels = {r: tuple(int(n) for n in described["channels"][r]) for r in RESOLUTIONS}
        contents = {r: (folder / f"{r}.npz").read_bytes() for r in RESOLUTIONS}
        sha256 = {r: hashlib.sha256(contents[r]).hexdigest() for r in RESOLUTIONS}
        if sha256 != described["sha256"]:
            raise ValueError(f"its files are not those whose hashes {_MODEL} has")
        params = {r: _parameters(contents[r], channels[r]) for r in RESOLUTIONS}
    except DAMAGED_ARCHIVE as error:
        raise InputError(f"{folder}: not a readable segmentation model ({error}).") from error
    return SegmentationModel(channels, params, sha256, folder)


def _of_runs(workdir: Path) -> SegmentationModel:
    """The networks of two runs of --stage=seg, by their checkpoints."""
    channels: dict[str, tuple[int, ...]] = {}
    params: dict[str, Any] = {}
    for resolution in RESOLUTIONS:
        channels[resolution], params[resolution] = read_run(workdir / resolution, resolution)
    sha256 = {r: parameters_sha256(params[r]) for r in RESOLUTIONS}
    return SegmentationModel(channels, params, sha256, workdir)


def read_run(workdir: Path, resolution: str) -> tuple[tuple[int, ...], Any]:
    """(channels, parameters) of a run of --stage=seg, by its newest checkpoint.

    Raises:
        InputError: there is no such run, or it is one of another resolution.
    """
    checkpoints, meta = open_run(workdir, "seg")
    config = from_json(SegmentationConfig, meta.config)
    if config.resolution != resolution:
        raise InputError(
            f"{workdir}: expected a run of --resolution={resolution}, got "
            f"--resolution={config.resolution}."
        )
    like = {"trainable": _shapes(config.channels), "frozen": {}}
    return config.channels, checkpoints.params(meta.step, like)["trainable"]


def write_segmentation_model(
    folder: Path,
    params: dict[str, Any],
    channels: dict[str, tuple[int, ...]],
    *,
    about: str,
) -> None:
    """Write both networks into an existing folder; `about` says what they were trained on."""
    sha256 = {}
    for resolution in RESOLUTIONS:
        leaves = leaves_by_name(params[resolution])
        arrays = {name: np.asarray(leaf, np.float16) for name, leaf in leaves.items()}
        path = folder / f"{resolution}.npz"
        np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
        sha256[resolution] = hashlib.sha256(path.read_bytes()).hexdigest()
    described = {"about": about, "channels": channels, "sha256": sha256}
    text = json.dumps(described, indent=1, ensure_ascii=False)
    (folder / _MODEL).write_text(text + "\n", encoding="utf-8")


def _parameters(content: bytes, channels: tuple[int, ...]) -> Any:
    like = _shapes(channels)
    with np.load(io.BytesIO(content)) as stored:
        wanted = leaves_by_name(like)
        if set(stored.files) != set(wanted):
            raise ValueError("its parameters are not those of its channels")
        leaves = [np.asarray(stored[name], np.float32) for name in wanted]
    for leaf, (name, shape) in zip(leaves, wanted.items(), strict=True):
        if leaf.shape != shape.shape:
            raise ValueError(f"{name}: expected shape {shape.shape}, got {leaf.shape}")
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _shapes(channels: tuple[int, ...]) -> Any:
    """Shapes and types of the parameters of a network."""
    side = 2 ** len(channels)
    image = jax.ShapeDtypeStruct((1, side, side, side, 1), jnp.float32)
    network = SegmentationUNet(channels, CLASSES)
    return stored_shapes(
        "parameters of a segmentation network",
        channels,
        lambda: jax.eval_shape(network.init, jax.random.key(0), image)["params"],
    )
