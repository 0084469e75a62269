"""Multi-modality deformable brain registration in JAX."""

from typing import TYPE_CHECKING, Any

from jaxreg._version import __version__

if TYPE_CHECKING:
    from jaxreg.models.release import load_model
    from jaxreg.registration.api import apply, convert, prepare, register, sweep

__all__ = ["__version__", "apply", "convert", "load_model", "prepare", "register", "sweep"]


def __getattr__(name: str) -> Any:
    """The functions of `__all__`, imported when they are asked for: `import jaxreg` stays cheap."""
    if name in ("apply", "convert", "prepare", "register", "sweep"):
        from jaxreg.registration import api

        return getattr(api, name)
    if name == "load_model":
        from jaxreg.models.release import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
