"""The configuration is cheap to import: it needs neither JAX nor SimpleITK."""

import json
import pkgutil
import subprocess
import sys

import pytest

import jaxreg.configuration as package

HEAVY = ("jax", "jaxlib", "flax", "optax", "SimpleITK", "scipy", "numpy", "nibabel")
MODULES = sorted(m.name for m in pkgutil.iter_modules(package.__path__, "jaxreg.configuration."))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_the_configuration_imports_nothing_heavy_and_nothing_above_it(module):
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = json.loads(done.stdout)
    assert module in loaded and not set(HEAVY) & set(loaded)
    own = [m for m in loaded if m.startswith("jaxreg.")]
    below = ("jaxreg.configuration", "jaxreg.errors", "jaxreg._version")
    assert all(m.startswith(below) for m in own), own
