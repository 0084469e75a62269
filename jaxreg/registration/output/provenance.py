"""Where a result comes from: versions, settings, hashes, geometry, numbers."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxreg._version import __version__
from jaxreg.configuration.registration import GIVEN_MATRIX, RegisterConfig
from jaxreg.configuration.serialization import as_json
from jaxreg.io.checksums import file_sha256
from jaxreg.io.commit import own_commit
from jaxreg.io.stored_images import MemoryImage
from jaxreg.models.release import name_of
from jaxreg.registration.inputs import Subject
from jaxreg.registration.output.estimate import EstimatedDice, as_record
from jaxreg.registration.register import Registration

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "SimpleITK", "nibabel")


def provenance_of_settings(
    fixed: Path | MemoryImage,
    moving: Path | MemoryImage,
    config: RegisterConfig,
    *,
    in_memory: Mapping[str, MemoryImage] | None = None,
) -> dict[str, Any]:
    """What is known of a run before it begins: the versions, the images named, the settings."""
    named = {name: str(image) for name, image in (in_memory or {}).items()}
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {"jaxreg": __version__, "python": platform.python_version(), **versions},
        "commit": own_commit(),
        "machine": f"{platform.system()} {platform.machine()}, {jax.devices()[0].device_kind}",
        "command": {"fixed": str(fixed), "moving": str(moving), **as_json(config), **named},
    }


def provenance_of(
    result: Registration, metrics: dict[str, float], estimate: EstimatedDice | None
) -> dict[str, Any]:
    """What a finished run adds: both images' geometry and hashes, the model's, λ, numbers."""
    method = result.method
    model = None
    if method.model is not None:
        model = {
            "name": name_of(method.model),
            "step": method.model.step,
            "weights_sha256": method.weights_sha256,
        }
    return {
        "fixed": _side(result.fixed),
        "moving": _side(result.moving),
        "model": model,
        "init_sha256": init_sha256(result.config),
        "objective": as_json(method.objective),
        "domains": method.domains,
        "network_grid": {
            "shape": list(result.grid.shape),
            "affine": result.grid.affine.tolist(),
            "is": result.grid_is,
        },
        "affine": result.affine.tolist(),
        "lam": None if result.config.transform != "deformable" else result.chosen.lam,
        "curve": [
            {"lam": d.lam, "similarity": d.similarity, "folds_percent": d.folds_percent}
            for d in result.curve
        ],
        "metrics": metrics,
        "estimated_dice": as_record(estimate),
        "warnings": list(result.warnings),
    }


def init_sha256(config: RegisterConfig) -> str | None:
    """SHA-256 of the file that a registration starts from; None where none is given."""
    if config.init in (None, GIVEN_MATRIX) or config.init_mode is not None:
        return None
    return file_sha256(config.init)


def file_hashes(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of files, by name."""
    return {p.name: file_sha256(p) for p in sorted(paths)}


def _side(subject: Subject) -> dict[str, Any]:
    header = subject.header
    return {
        "files": subject.files,
        "grid": {"shape": list(header.grid.shape), "affine": header.grid.affine.tolist()},
        "axes": header.axes,
        "spacing_mm": list(header.spacing_mm),
        "brain_known": subject.brain_known,
    }
