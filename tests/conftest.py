"""Two CPU devices, strict JAX settings, and shape annotations checked while the tests run."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

from jaxreg import runtime  # noqa: E402

runtime.prepare()  # before jax is imported: it sets the compilation cache

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
install_import_hook("jaxreg", "beartype.beartype")
