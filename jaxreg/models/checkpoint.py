"""Checkpoints of a run: parameters, optimiser, data cursor and configuration. Orbax lives here.

`<workdir>/checkpoints/<step>/` holds `params` (everything a network needs, frozen encoders
included), `optimizer`, `meta` (JSON: stage, configuration, identity, cursor, finished steps) and
`SHA256SUMS`, the last file written. All is written beside and then renamed, so a checkpoint is
there whole or not at all; what happened to it afterwards, the sums show. Several processes save
together, and Orbax writes once for all; the first alone reads, and tells the others.
"""

import errno
import hashlib
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxreg import distributed
from jaxreg.configuration.earlier_versions import config_of_today, identity_of_today
from jaxreg.errors import InputError, first_line
from jaxreg.io import checksums

KEPT = 3
_PARTIAL = "partial"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
_OVERHEAD, _CHUNK = 1 << 18, 1 << 20
"""Bytes that a checkpoint takes beside its arrays, and those that are written at once."""
_OTHER_ARRAYS = ("tree structures do not match", "not compatible with the stored shape")
"""How Orbax says that a checkpoint holds other arrays than those asked for."""
_UNFIT = "its arrays are not those of its configuration"
_FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""What Orbax and TensorStore raise over files; errors of JAX are RuntimeErrors."""


class Meta(NamedTuple):
    """What a checkpoint says of itself, in JSON values."""

    stage: str
    config: dict[str, Any]
    identity: dict[str, Any]
    cursor: dict[str, Any]
    step: int
    sealed: int = 0
    """1 where SHA256SUMS was written; older checkpoints have none."""


class Checkpoints:
    """The checkpoints of one workdir; the newest `KEPT` stay."""

    def __init__(self, workdir: Path):
        """Open the folder, which need not exist."""
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs what it raises
        self.folder = workdir.absolute() / "checkpoints"

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, whole or damaged, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if _is_step(p))

    def newest(self) -> Meta | None:
        """What the newest whole checkpoint says of itself; None where there are no checkpoints.

        Each damaged one on the way is named on standard error, and left as it is.

        Raises:
            InputError: there are checkpoints, and all are damaged.
        """
        found = distributed.broadcast_from_primary(self._newest)
        return None if found is None else Meta(**found)

    def require_writable(self) -> None:
        """Raise InputError, before any work is done, where checkpoints could not be written."""
        if distributed.index() > 0:
            return
        try:
            self._probe(_OVERHEAD)
        except OSError as error:
            raise InputError(f"{self.folder}: not writable ({error.strerror}).") from error

    def save(self, meta: Meta, params: Any, optimizer: Any) -> None:
        """Write the checkpoint of `meta.step`, then drop the oldest.

        Raises:
            InputError: it could not be written; those that were there still are.
        """
        partial, final = self.folder / _PARTIAL, self.folder / str(meta.step)
        sealed = meta._replace(sealed=1)._asdict()
        first = distributed.index() == 0
        try:
            values = {"params": params, "optimizer": optimizer, "meta": sealed}
            if first:
                self._probe(_OVERHEAD + sum(x.nbytes for x in jax.tree.leaves((params, optimizer))))
            _orbax().save_checkpointables(str(partial), values)
            if first:
                checksums.seal(partial)
                partial.rename(final)
                self._drop_oldest()
        except _FAILURES as error:
            self._drop_partial()
            kept = self.steps()
            raise InputError(
                f"{final}: checkpoint not written ({_reason(error)}); "
                f"{f'that of step {kept[-1]} is kept' if kept else 'there is none yet'}."
            ) from error

    def set_aside_after(self, step: int) -> None:
        """Rename the (damaged) checkpoints of later steps, so that new ones can be written."""
        if distributed.index() > 0:
            return
        for later in (s for s in self.steps() if s > step):
            number = 1
            while (aside := self.folder / f"{later}.damaged-{number}").exists():
                number += 1
            try:
                (self.folder / str(later)).rename(aside)
            except OSError as error:
                raise InputError(f"{self.folder}: not writable ({error.strerror}).") from error
            print(f"jaxreg: {self.folder / str(later)}: kept as {aside.name}.", file=sys.stderr)

    def params(self, step: int, like: Any) -> Any:
        """Parameters of a step, of the structure, shapes and types of `like`."""
        return distributed.arrays_from_first(lambda: self._tree("params", step, like), like)

    def optimizer(self, step: int, like: Any) -> Any:
        """Optimiser state of a step, as `params`."""
        return distributed.arrays_from_first(lambda: self._tree("optimizer", step, like), like)

    def _newest(self) -> dict[str, Any] | None:
        flaws = []
        for step in reversed(self.steps()):
            meta = self._whole(step)
            if isinstance(meta, Meta):
                for line in flaws:
                    print(f"jaxreg: {line}; step {step} is used instead.", file=sys.stderr)
                return meta._asdict()
            flaws.append(f"{self.folder / str(step)}: damaged checkpoint ({meta})")
        if flaws:
            raise InputError(
                f"{flaws[0]}, and no older one is whole; move {self.folder} away to start anew."
            )
        return None

    def _whole(self, step: int) -> Meta | str:
        """What a checkpoint says of itself, or what is wrong with it, in words."""
        folder = self.folder / str(step)
        flaw = checksums.mismatch(folder)
        if flaw is not None and (folder / checksums.NAME).exists():
            return flaw
        try:
            meta = _meta_of_today(self._load(step, {"meta": None})["meta"])
        except (InputError, TypeError) as error:
            return flaw or str(error)
        return meta if flaw is None or not meta.sealed else flaw

    def _probe(self, size: int) -> None:
        """Raise OSError where that many bytes cannot be written, by writing and removing them.

        Where the disk fills up during Orbax's own writing, TensorStore's threads print a traceback
        for each array that is not done yet. A quota shows only when something is written, and a
        file system that compresses has room for any number of zeros.
        """
        noise = os.urandom(min(_CHUNK, size))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._drop_partial()
            (self.folder / _PARTIAL).mkdir()
            with (self.folder / _PARTIAL / "probe").open("wb") as file:
                for begin in range(0, size, _CHUNK):
                    file.write(noise[: size - begin])
        finally:
            self._drop_partial()

    def _drop_oldest(self) -> None:
        """Delete all but the newest `KEPT`, each under a name that is no checkpoint's."""
        for old in self.steps()[:-KEPT]:
            (self.folder / str(old)).rename(self.folder / _PARTIAL)
            shutil.rmtree(self.folder / _PARTIAL)

    def _drop_partial(self) -> None:
        """Remove what an interrupted `save` left behind."""
        for path in self.folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _tree(self, name, step, like):
        restored = self._load(step, {name: _abstract(like)})[name]
        return _checked(restored, like, self.folder / str(step))

    def _load(self, step, abstract):
        path, ocp = self.folder / str(step), _orbax()
        first_only = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        try:
            with ocp.Context(multiprocessing_options=first_only):
                return ocp.load_checkpointables(str(path), abstract)
        except _FAILURES as error:
            raise InputError(f"{path}: not a readable checkpoint ({_reason(error)}).") from error


def _orbax() -> Any:
    """Orbax, imported where a run is read or written: a release does without, and starts sooner."""
    from orbax.checkpoint import v1

    return v1


def open_run(workdir: Path, stage: str) -> tuple[Checkpoints, Meta]:
    """The newest whole checkpoint of a finished or unfinished run.

    Raises:
        InputError: no run there, or one of another stage.
    """
    checkpoints = Checkpoints(workdir)
    meta = checkpoints.newest()
    if meta is None:
        raise InputError(
            f"{workdir}: expected a training workdir with checkpoints, found none; train it first "
            f"(jaxreg train --stage={stage} --workdir={workdir})."
        )
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


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """Leaves by their path (`network/down/kernel`), in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(part.key) for part in path): leaf for path, leaf in leaves}


def _meta_of_today(stored: dict[str, Any]) -> Meta:
    """What a checkpoint says of itself, the names of earlier versions replaced by today's."""
    meta = Meta(**stored)
    return meta._replace(
        config=config_of_today(meta.stage, meta.config),
        identity=identity_of_today(meta.stage, meta.identity),
    )


def _is_step(path: Path) -> bool:
    """Whether a path is a checkpoint: a folder whose name is what `str` makes of a number."""
    return path.name.isascii() and path.name.isdigit() and path.is_dir()


def _reason(error: BaseException) -> str:
    """What went wrong, in a line.

    TensorStore says it at the end of a very long one, and Orbax wraps what a handler raised in an
    error that says that no handler fits.
    """
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    told = [str(one) for one in causes]
    known = [words for words in map(os.strerror, _DISK) if any(words in text for text in told)]
    if known:
        return known[0]
    if any(words in text for words in _OTHER_ARRAYS for text in told):
        return _UNFIT
    return first_line(causes[-1])[:200]


def _abstract(tree):
    """Shapes and types, on one local device whatever the devices of the run that saved them."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


def _checked(restored, like, path):
    """Orbax casts a wrong type silently and puts a wrong shape opaquely: compare here."""
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), like)
    got = jax.tree.map(lambda x: (x.shape, x.dtype), restored)
    if wanted != got:
        raise InputError(f"{path}: not a readable checkpoint ({_UNFIT}).")
    return jax.tree.map(np.asarray, restored)
