"""Multi-modality deformable brain registration in JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxreg._version import __version__

if TYPE_CHECKING:
    from jaxreg.evaluation.api import compare_runs, evaluate
    from jaxreg.models.release import load_model
    from jaxreg.registration.api import register, sweep
    from jaxreg.registration.compare_tools.api import compare
    from jaxreg.registration.normalize.api import normalize
    from jaxreg.registration.prepare_api import prepare
    from jaxreg.registration.transform_api import apply, convert
    from jaxreg.segmentation.api import segment
    from jaxreg.training.train import train

__all__ = [
    "__version__",
    "apply",
    "compare",
    "compare_runs",
    "convert",
    "evaluate",
    "load_model",
    "normalize",
    "prepare",
    "register",
    "segment",
    "sweep",
    "train",
]

_HOMES = {
    "apply": "jaxreg.registration.transform_api",
    "compare": "jaxreg.registration.compare_tools.api",
    "compare_runs": "jaxreg.evaluation.api",
    "convert": "jaxreg.registration.transform_api",
    "evaluate": "jaxreg.evaluation.api",
    "load_model": "jaxreg.models.release",
    "normalize": "jaxreg.registration.normalize.api",
    "prepare": "jaxreg.registration.prepare_api",
    "register": "jaxreg.registration.api",
    "segment": "jaxreg.segmentation.api",
    "sweep": "jaxreg.registration.api",
    "train": "jaxreg.training.train",
}


def __getattr__(name: str) -> Any:
    """The functions of `__all__`, imported when they are asked for: `import jaxreg` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
