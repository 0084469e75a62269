"""Multi-modality deformable brain registration in JAX."""

from typing import TYPE_CHECKING, Any

from jaxreg._version import __version__

if TYPE_CHECKING:
    from jaxreg.registration.api import register

__all__ = ["__version__", "register"]


def __getattr__(name: str) -> Any:
    """`register`, which is imported when it is asked for: `import jaxreg` alone stays cheap."""
    if name == "register":
        from jaxreg.registration.api import register

        return register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
