"""Multi-modality deformable brain registration in JAX."""

from jaxreg._version import __version__

__all__ = ["__version__"]
