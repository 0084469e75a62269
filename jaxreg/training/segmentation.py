"""The segmentation stage: soft Dice and cross-entropy on images of any contrast."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxreg import distributed
from jaxreg.configuration.serialization import as_json, identity
from jaxreg.configuration.training import SegmentationConfig
from jaxreg.data.heads import find_cohorts, read_heads
from jaxreg.data.label_codes import CLASSES
from jaxreg.errors import InputError
from jaxreg.io.images import Remark, unheard
from jaxreg.networks.layers import fold
from jaxreg.networks.segmentation_unet import SegmentationUNet
from jaxreg.segmentation.networks import load_named_segmentation
from jaxreg.training.atlas import atlas_of, fingerprint
from jaxreg.training.augmentation.synthesis.atlas import COARSE, FINE, View
from jaxreg.training.augmentation.synthesis.example import training_example
from jaxreg.training.loop import Task
from jaxreg.training.segmentation_validation import make_validation, read_held_out

VIEWS = {"fine": FINE, "coarse": COARSE}


def segmentation_task(config: SegmentationConfig, *, remark: Remark = unheard) -> Task:
    """The segmentation stage on the cohorts that the configuration names.

    `remark` gets a line on what is unusual in a file and is accepted.
    """
    assert config.data is not None
    view, optimizer = VIEWS[config.resolution], config.optimizer
    cohorts = find_cohorts([Path(part) for part in config.data.split(",")])
    groups = [read_heads(cohort, "train", remark=remark) for cohort in cohorts]
    heads = [head for group in groups for head in group]
    if not heads:
        raise InputError(f"{config.data}: expected _dseg volumes in split 'train', found none.")
    atlas = atlas_of(heads, view)
    network = network_of(config)
    extra = {}
    if config.init_from is None:
        image = jnp.zeros((1, *(2 ** (len(network.channels) + 1),) * 3, 1))
        params = jax.jit(network.init)(jax.random.key(optimizer.seed), image)["params"]
    else:
        params, extra["init_from_sha256"] = initialized_from(config)
    held_out = read_held_out(cohorts, view, config.validation_subjects, remark=remark)
    return Task(
        stage="seg",
        config=as_json(config),
        identity={**identity(config), **extra, "data_sha256": fingerprint(atlas)},
        defaults=identity(SegmentationConfig()),
        params=params,
        frozen={},
        resident={"atlas": atlas},
        loss=make_loss(
            network, view, real_share=config.real_fraction, one_corner=config.voxels == "corner"
        ),
        batches=SubjectBatches([len(g) for g in groups], optimizer.batch_size, optimizer.seed),
        arrays=("subject",),
        describe=lambda batch, row: heads[int(batch["subject"][row])].name,
        validate=make_validation(network, held_out) if held_out else None,
    )


def network_of(config: SegmentationConfig) -> SegmentationUNet:
    """The network of a configuration."""
    settings = config.network
    dtype = jnp.dtype(settings.dtype)
    form: Any = settings.convolution
    return SegmentationUNet(config.channels, CLASSES, dtype, form)


def initialized_from(config: SegmentationConfig) -> tuple[Any, str]:
    """(parameters that `--init-from` names, their hash) of the network of a configuration.

    Raises:
        InputError: the folder holds no readable segmentation model, or one with other channels.
    """
    assert config.init_from is not None
    model, _ = load_named_segmentation(config.init_from)
    channels = model.channels[config.resolution]
    if channels != config.channels:
        asked, stored = (",".join(map(str, names)) for names in (config.channels, channels))
        raise InputError(
            f"{config.init_from}: expected a network of --channels={asked}, got one of {stored}."
        )
    params = jax.tree.map(jnp.asarray, model.params[config.resolution])
    return params, model.sha256[config.resolution]


class SubjectBatches:
    """Endless batches of subjects' indices, a function of the seed and the position alone.

    A cohort is drawn with the square root of its size, so that a small one counts.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int):
        """Subjects lie one cohort after another."""
        weights = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
        self._shares, self._batch_size, self._seed = weights / weights.sum(), batch_size, seed
        self._position = 0

    def __iter__(self) -> "SubjectBatches":
        """Itself."""
        return self

    def __next__(self) -> dict[str, Int[np.ndarray, " b"]]:
        """This process's rows of the next batch."""
        rng = np.random.default_rng((self._seed, self._position))
        self._position += 1
        drawn = rng.choice(len(self._shares), self._batch_size, p=self._shares).astype(np.int32)
        return {"subject": np.split(drawn, distributed.count())[distributed.index()]}

    def get_state(self) -> dict[str, int]:
        """The position."""
        return {"position": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        """Go on from a position."""
        self._position = int(state["position"])


def make_loss(
    network: SegmentationUNet, view: View, *, real_share: float, one_corner: bool
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """The loss of one sample: (params, frozen with `atlas`, {"subject"}, key) → (loss, terms).

    With `one_corner` it looks at one random voxel of every 2×2×2, which spares a CPU much work.
    """

    def loss(params, frozen, sample, key):
        make_key, corner_key = jax.random.split(key)
        image, codes = training_example(
            make_key, frozen["atlas"], sample["subject"], view, real_share
        )
        corner = jax.random.randint(corner_key, (), 0, 8) if one_corner else None
        scores = network.apply({"params": params}, image[None, ..., None], corner=corner)[0]
        if one_corner:
            codes = fold(codes[None, ..., None])[0].at[..., corner].get()
        return dice_and_cross_entropy(scores, codes)

    return loss


def dice_and_cross_entropy(
    scores: Float[Array, "x y z k"], codes: UInt8[Array, "x y z"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """1 − soft Dice, mean over the classes that are there (no background), and cross-entropy."""
    classes = scores.shape[-1]
    logarithm = jax.nn.log_softmax(scores)
    truth = codes[..., None] == jnp.arange(classes)[None, None, None]
    entropy = -jnp.mean(jnp.sum(jnp.where(truth, logarithm, 0), axis=-1))
    probability = jnp.exp(logarithm)
    voxels = (0, 1, 2)
    common = jnp.sum(jnp.where(truth, probability, 0), voxels)
    sizes = jnp.sum(truth, voxels, dtype=jnp.float32)
    dice = 2 * common / (sizes + jnp.sum(probability, voxels) + 1e-3)
    there = (sizes > 0) & (jnp.arange(classes) > 0)
    mean = jnp.sum(jnp.where(there, dice, 0)) / jnp.maximum(jnp.sum(there), 1)
    return 1 - mean + entropy, {"soft_dice": mean, "cross_entropy": entropy}
