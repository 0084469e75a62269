"""The public API keeps the project's own conventions: names, order, docstrings, layers."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import jaxreg

MODULES = sorted(m.name for m in pkgutil.walk_packages(jaxreg.__path__, "jaxreg.") if not m.ispkg)
OTHER_NAMES = {
    "source": "moving",
    "target": "fixed",
    "flow": "displacement",
    "ddf": "displacement",
    "svf": "velocity",
    "lambda_": "lam",
    "lmbda": "lam",
    "warped": "moved",
    "rng_key": "key",
    "seg": "labels",
}
"""Names of the field that would be second ones here."""
HOMES = {
    "nibabel": {"jaxreg.io.images", "jaxreg.io.headers", "jaxreg.io.displacement_fields"},
    "matplotlib": {"jaxreg.evaluation.figures.basic", "jaxreg.evaluation.figures.comparison"},
    "orbax": {"jaxreg.models.checkpoint"},
    "grain": {"jaxreg.data.pipeline"},
    "tyro": {m for m in MODULES if m.startswith("jaxreg.commands.")}
    - {"jaxreg.commands.console", "jaxreg.commands.demo"},  # these only name fields
    "SimpleITK": {"jaxreg.registration.linear.affine", "jaxreg.io.itk_transforms"},
}
LAYERS = ("spatial", "networks", "losses", "training")
"""Each may import those before it, never those behind it."""


def public_functions():
    for name in MODULES:
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if key.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            function = inspect.unwrap(value)
            if inspect.isfunction(function):
                yield pytest.param(function, id=f"{name}.{key}")


FUNCTIONS = list(public_functions())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_public_functions_say_what_they_do(function):
    doc = inspect.getdoc(function)
    assert doc and doc.splitlines()[0].endswith((".", ":", ";")), "a docstring with a first line"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_fixed_comes_before_moving_and_concepts_have_one_name(function):
    names = list(inspect.signature(function).parameters)
    for name in names:
        assert name not in OTHER_NAMES, f"{name}: here it is {OTHER_NAMES[name]}"
    for fixed in [n for n in names if n.startswith("fixed")]:
        partner = fixed.replace("fixed", "moving", 1)
        for other in (partner, fixed.replace("fixed", "moved", 1)):
            if other in names:
                assert names.index(fixed) < names.index(other)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_defaults_are_keyword_only(function):
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty and name != "argv":
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name


def imports(module):
    """Names of the modules that a module's source imports, at any depth."""
    path = inspect.getsourcefile(importlib.import_module(module))
    assert path is not None
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("library", HOMES)
def test_a_third_party_effect_has_one_home(library):
    users = {m for m in MODULES if any(i.split(".")[0] == library for i in imports(m))}
    assert users == HOMES[library]


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way(module):
    layer = module.split(".")[1]
    behind = LAYERS[LAYERS.index(layer) + 1 :] if layer in LAYERS else ()
    for imported in imports(module):
        assert not any(imported.startswith(f"jaxreg.{later}") for later in behind), imported
        if not module.startswith(("jaxreg.cli", "jaxreg.commands")):
            assert not imported.startswith(("jaxreg.cli", "jaxreg.commands")), imported
