"""Multi-modality deformable brain registration in JAX."""

from typing import TYPE_CHECKING, Any

from jaxreg._version import __version__

if TYPE_CHECKING:
    from jaxreg.evaluation.api import compare_runs, evaluate
    from jaxreg.models.release import load_model
    from jaxreg.registration.api import apply, compare, convert, prepare, register, sweep
    from jaxreg.registration.normalize.api import normalize
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


def __getattr__(name: str) -> Any:
    """The functions of `__all__`, imported when they are asked for: `import jaxreg` stays cheap."""
    if name in ("apply", "compare", "convert", "prepare", "register", "sweep"):
        from jaxreg.registration import api

        return getattr(api, name)
    if name in ("compare_runs", "evaluate"):
        from jaxreg.evaluation import api

        return getattr(api, name)
    if name == "load_model":
        from jaxreg.models.release import load_model

        return load_model
    if name == "normalize":
        from jaxreg.registration.normalize.api import normalize

        return normalize
    if name == "segment":
        from jaxreg.segmentation.api import segment

        return segment
    if name == "train":
        from jaxreg.training.train import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
