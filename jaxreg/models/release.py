"""A trained network as three small files that travel with the package or go to a colleague.

`weights.npz` holds the parameters by name, those of frozen encoders included; `model.json` the
training configuration, what the network was trained on, and how it registers where no flag says
otherwise (λ, passes and steps of refinement, chosen on validation pairs). `model.json` also has a
hash of the parameters and the template, checked when they are read. `template.nii.gz` is the mean
of training subjects: where the network expects what (`jaxreg/registration/deformable/grid.py`).
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxreg.configuration.earlier_versions import config_of_today
from jaxreg.configuration.serialization import as_json, from_json
from jaxreg.configuration.training import RegistrationConfig
from jaxreg.errors import InputError
from jaxreg.io import images
from jaxreg.io.archives import DAMAGED_ARCHIVE
from jaxreg.io.atomic import completed_folder
from jaxreg.models.checkpoint import leaves_by_name
from jaxreg.models.model import (
    TEMPLATE,
    Defaults,
    Model,
    encoder_of,
    init_encoders,
    load_run,
    parameter_shapes,
    read_template,
)

SHIPPED = Path(__file__).parent / "weights" / "t1w-t2w"
"""The network that registers where --model is not given."""
_WEIGHTS, _MODEL = "weights.npz", "model.json"
_PRIVATE = ("session", "encoders", "init_from")
"""Parts of a configuration that speak of the training machine's folders."""
_HEADER_BYTES = 1024
"""More than an array's header takes in `weights.npz`."""


def load_model(folder: Path | str) -> Model:
    """The model of a training workdir, at its newest checkpoint, or of a release.

    Args:
        folder: a workdir of `jaxreg train`, or a folder with weights.npz and model.json.

    Returns:
        The parameters with the configuration that they were trained with.

    Raises:
        InputError: neither is there, or it is damaged.

    Examples:
        >>> import jaxreg
        >>> from jaxreg.models.release import SHIPPED
        >>> jaxreg.load_model(SHIPPED).config.cohort.domain_pair
        ('T1w', 'T2w')
    """
    folder = Path(folder)
    return read_release(folder) if (folder / _MODEL).is_file() else load_run(folder)


def name_of(model: Model) -> str:
    """What a user calls a model: its folder, or that it comes with jaxreg."""
    if model.folder == SHIPPED:
        return f"{SHIPPED.name}, which comes with jaxreg"
    return str(model.folder)


def write_release(model: Model, folder: Path, defaults: Defaults, *, about: str) -> None:
    """Write a model's files into a new folder; `about` says what it was trained on.

    Raises:
        InputError: the folder cannot be written.
    """
    config = {k: v for k, v in as_json(model.config).items() if k not in _PRIVATE}
    config["cohort"]["data"] = None
    if model.config.teacher is not None:
        config["teacher"] = model.config.teacher.name
    described = {
        "about": about,
        "config": config,
        "step": model.step,
        "spacing_mm": list(model.spacing_mm),
        "encoder_stem": model.encoder_stem,
        "register": defaults._asdict(),
        "sha256": model.sha256,
    }
    arrays = leaves_by_name({"params": model.params, "encoders": model.encoders})
    with completed_folder(folder) as partial:
        np.savez_compressed(partial / _WEIGHTS, **arrays)
        text = json.dumps(described, indent=1, ensure_ascii=False)
        (partial / _MODEL).write_text(text + "\n", encoding="utf-8")
        if model.template is not None:
            images.write(partial / TEMPLATE, model.template, dtype=np.uint8)


def read_release(folder: Path) -> Model:
    """The model of a released folder.

    Raises:
        InputError: a file is missing or damaged, or the parameters are not those of the hash.
    """
    try:
        described = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
        config = from_json(RegistrationConfig, config_of_today("reg", described["config"]))
        encoder, stem = None, None
        if config.objective.spec.contrastive:
            stem = described["encoder_stem"]
            encoder = encoder_of(stem)
        like: Any = {
            "params": parameter_shapes(config, encoder),
            "encoders": {} if stem is None else init_encoders(config.cohort.domain_pair, stem),
        }
        values = _read_arrays(folder / _WEIGHTS, leaves_by_name(like))
        found = jax.tree.unflatten(jax.tree.structure(like), values)
        x, y, z = (float(v) for v in described["spacing_mm"])
        defaults = Defaults(**described["register"])
        step, sha256 = int(described["step"]), str(described["sha256"])
    except DAMAGED_ARCHIVE as error:
        raise InputError(f"{folder}: not a readable model ({error}).") from error
    model = Model(
        config,
        found["params"],
        found["encoders"],
        step,
        (x, y, z),
        stem,
        defaults,
        folder,
        read_template(folder),
    )
    if model.sha256 != sha256:
        raise InputError(
            f"{folder}: parameters and template are not those whose hash {_MODEL} has."
        )
    return model


def _read_arrays(path: Path, like: dict[str, Any]) -> list[np.ndarray]:
    """The arrays of a .npz of these names, shapes and types, read only where they fit."""
    arrays = []
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if set(members) != {f"{name}.npy" for name in like}:
            raise ValueError("its parameters are not those of the configuration")
        for name, wanted in like.items():
            size = int(np.prod(wanted.shape)) * np.dtype(wanted.dtype).itemsize
            if members[f"{name}.npy"].file_size > size + _HEADER_BYTES:
                raise ValueError(f"{name} does not fit the configuration")
            with archive.open(f"{name}.npy") as file:
                stream = io.BytesIO(file.read(size + _HEADER_BYTES))
            array = np.lib.format.read_array(stream)  # never a pickle
            if (array.shape, array.dtype) != (wanted.shape, wanted.dtype):
                raise ValueError(f"{name} does not fit the configuration")
            arrays.append(array)
    return arrays
