"""The public API keeps the project's own conventions: names, order, docstrings, layers."""

import ast
import functools
import graphlib
import importlib
import inspect
import pkgutil
from pathlib import Path

import import_graph
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
    "SimpleITK": [
        "geometry.itk_sampling",
        "io.itk_geometry",
        "io.itk_transforms",
        "registration.linear.affine",
    ],
    "ancpbids": ["data.bids"],
    "cattrs": ["configuration.serialization"],
    "distributed": ["registration.batch.dask"],
    "flax": ["networks"],
    "grain": ["data.pipeline"],
    "jinja2": ["registration.report.html", "segmentation.report"],
    "markupsafe": ["registration.report", "segmentation.report"],
    "matplotlib": ["evaluation.figures"],
    "nibabel": ["io"],
    "nipype": ["pipelines.nipype"],
    "optax": ["registration.deformable.optimization", "registration.linear.overlap", "training"],
    "orbax": ["models.checkpoint"],
    "pydra": ["pipelines.pydra"],
    "scipy": ["data", "evaluation", "geometry", "registration", "segmentation"],
    "tensorboardX": ["training.tensorboard"],
    "tyro": ["commands"],
}
"""The modules and packages of jaxreg in which a library may be used."""
WITHOUT_JAX = ("configuration", "geometry", "io", "errors", "runtime")
"""Parts that import no JAX: a command says what is wrong with its input before JAX starts."""


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


LEVELS = {part: level for level, row in enumerate(import_graph.layers()) for part in row}
SOURCES = sorted(set(import_graph.MODULES) - {"jaxreg", "jaxreg.__main__"})


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_used_in_its_home_alone(library):
    homes = [f"jaxreg.{home}" for home in HOMES[library]]
    for module in SOURCES:
        names = {name.split(".")[0] for name in import_graph.imported_names(module)}
        if library in names | names_loaded(module):
            assert any(f"{module}.".startswith(f"{home}.") for home in homes), module


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_downwards_only(module):
    """Within a layer too: `training` and `registration`, for one, never import each other."""
    level = LEVELS[import_graph.part_of(module)]
    for other in import_graph.imported_modules(module):
        inside = import_graph.part_of(other) == import_graph.part_of(module)
        below = LEVELS[import_graph.part_of(other)] > level
        assert inside or below, f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: import_graph.imported_modules(module) for module in SOURCES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_no_module_hides_an_import_in_a_string():
    """All but `cli`, which looks for the command that is asked for by its name."""
    for module in set(SOURCES) - {"jaxreg.cli"}:
        assert "jaxreg" not in names_loaded(module), module


@functools.cache
def names_loaded(module):
    """The libraries that a module imports by `import_module`, its argument being a string."""
    tree = ast.parse(import_graph.MODULES[module].read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    called = [c.args[0] for c in calls if ast.unparse(c.func).split(".")[-1] == "import_module"]
    return {ast.unparse(name).strip("f'\"").split(".")[0] for name in called}


@pytest.mark.parametrize("part", WITHOUT_JAX)
def test_a_part_imports_no_jax(part):
    for module in SOURCES:
        if import_graph.part_of(module) == part:
            names = {name.split(".")[0] for name in import_graph.imported_names(module)}
            assert not names & {"jax", "flax", "optax", "orbax"}, module


def test_tests_lie_in_the_folders_of_the_package():
    tests, package = Path(__file__).parent, Path(jaxreg.__path__[0])
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert all((package / folder).is_dir() for folder in folders), folders
