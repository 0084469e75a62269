"""Checkpoints of a run: parameters, optimiser, data cursor and configuration. Orbax lives here.

`<workdir>/checkpoints/<step>/` holds `params` (everything a network needs, frozen encoders
included), `optimizer`, and `meta` (JSON: stage, configuration, identity, cursor, finished steps).
Orbax writes into a temporary folder and renames it, so a checkpoint is there whole or not at all.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxreg.errors import InputError

KEPT = 3


class Meta(NamedTuple):
    """What a checkpoint says of itself, in JSON values."""

    stage: str
    config: dict[str, Any]
    identity: dict[str, Any]
    cursor: dict[str, Any]
    step: int


class Checkpoints:
    """The checkpoints of one workdir; the newest `KEPT` stay."""

    def __init__(self, workdir: Path):
        """Open the folder, which need not exist."""
        logging.getLogger("absl").setLevel(logging.WARNING)
        self.folder = workdir.absolute() / "checkpoints"

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        names = [p for p in self.folder.iterdir() if p.name.isdigit() and p.is_dir()]
        return sorted(int(p.name) for p in names if (p / "params").exists())

    def save(self, meta: Meta, params: Any, optimizer: Any) -> None:
        """Write the checkpoint of `meta.step`, then drop the oldest."""
        keep: Any = ocp.training.preservation_policies.LatestN(KEPT)
        always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        with ocp.training.Checkpointer(
            str(self.folder),
            preservation_policy=keep,
            save_decision_policy=always,
        ) as checkpointer:
            values = {"params": params, "optimizer": optimizer, "meta": meta._asdict()}
            checkpointer.save_checkpointables(meta.step, values, force=True, overwrite=True)

    def meta(self, step: int) -> Meta:
        """What the checkpoint of a step says of itself."""
        return Meta(**self._load(step, {"meta": None})["meta"])

    def params(self, step: int, like: Any) -> Any:
        """Parameters of a step, of the structure, shapes and types of `like`."""
        restored = self._load(step, {"params": _abstract(like)})["params"]
        return _checked(restored, like, self.folder / str(step))

    def optimizer(self, step: int, like: Any) -> Any:
        """Optimiser state of a step, as `params`."""
        restored = self._load(step, {"optimizer": _abstract(like)})["optimizer"]
        return _checked(restored, like, self.folder / str(step))

    def _load(self, step, abstract):
        try:
            return ocp.load_checkpointables(str(self.folder / str(step)), abstract)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise InputError(
                f"{self.folder / str(step)}: not a readable checkpoint ({reason})."
            ) from error


def open_run(workdir: Path, stage: str) -> tuple[Checkpoints, Meta]:
    """The newest checkpoint of a finished or unfinished run.

    Raises:
        InputError: no run there, or one of another stage.
    """
    checkpoints = Checkpoints(workdir)
    steps = checkpoints.steps()
    if not steps:
        raise InputError(f"{workdir}: expected a training workdir with checkpoints, found none.")
    meta = checkpoints.meta(steps[-1])
    if meta.stage != stage:
        raise InputError(f"{workdir}: expected a run of --stage={stage}, got --stage={meta.stage}.")
    return checkpoints, meta


def parameters_sha256(params: Any) -> str:
    """SHA-256 over names, shapes and bytes of parameters."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _abstract(tree):
    """Shapes and types, on one local device whatever the devices of the run that saved them."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


def _checked(restored, like, path):
    """Orbax casts a wrong type silently and puts a wrong shape opaquely: compare here."""
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), like)
    got = jax.tree.map(lambda x: (x.shape, x.dtype), restored)
    if wanted != got:
        raise InputError(f"{path}: parameters do not fit the stored configuration.")
    return jax.tree.map(np.asarray, restored)
