"""Where a result comes from: versions, settings, hashes, geometry, numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxreg.configuration.registration import GIVEN_MATRIX, RegisterConfig
from jaxreg.configuration.serialization import as_json
from jaxreg.io.checksums import file_sha256
from jaxreg.models.release import name_of
from jaxreg.registration.inputs import Subject
from jaxreg.registration.output.estimate import EstimatedDice, as_record
from jaxreg.registration.output.settings import machine
from jaxreg.registration.register import Registration
from jaxreg.segmentation.networks import load_segmentation


def provenance_of(
    result: Registration, metrics: dict[str, float], estimate: EstimatedDice | None
) -> dict[str, Any]:
    """What a finished run adds: device, both images' geometry and hashes, the model, λ, numbers."""
    method = result.method
    model = None
    if method.model is not None:
        model = {
            "name": name_of(method.model),
            "step": method.model.step,
            "weights_sha256": method.weights_sha256,
        }
    return {
        "machine": f"{machine()}, {jax.devices()[0].device_kind}",
        "fixed": _side(result.fixed),
        "moving": _side(result.moving),
        "model": model,
        "segmentation_sha256": segmentation_sha256(result.config),
        "optimization": {"passes": method.passes, "steps": method.steps, "rate": method.rate},
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


def segmentation_sha256(config: RegisterConfig) -> dict[str, str] | None:
    """SHA-256 of the segmentation networks that take part; None where none does."""
    return None if config.extract == "never" else load_segmentation(config.segmentation)[0].sha256


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
