"""What the record of a registration has before it begins; JAX is not imported for it."""

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxreg._version import __version__
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.serialization import as_json
from jaxreg.io.commit import own_commit
from jaxreg.io.stored_images import MemoryImage

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "SimpleITK", "nibabel")


def machine() -> str:
    """The operating system and the architecture."""
    return f"{platform.system()} {platform.machine()}"


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
        "machine": machine(),
        "command": {"fixed": str(fixed), "moving": str(moving), **as_json(config), **named},
    }
