"""The notebooks: committed without outputs, free of functions, and run from top to bottom."""

import ast
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"01_register_a_pair": 2, "02_train_on_your_cohort": 2, "03_lambda_sweep_and_figures": 2}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path) -> Any:
    """A notebook, checked against the format's schema."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parsed(notebook) -> ast.Module:
    """The code of all cells, magics as IPython turns them into calls."""
    transform = TransformerManager().transform_cell
    return ast.parse("\n".join(transform(cell.source) for cell in code_cells(notebook)))


def test_the_notebooks_are_these():
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


@each
def test_a_notebook_is_committed_without_outputs(path):
    for cell in code_cells(read(path)):
        assert cell.outputs == [] and cell.execution_count is None and cell.metadata == {}


@each
def test_a_notebook_defines_no_functions(path):
    assert not [node for node in ast.walk(parsed(read(path))) if isinstance(node, FUNCTIONS)]


@each
def test_the_first_cell_of_code_installs_the_package_where_it_is_missing(path):
    install = code_cells(read(path))[0].source
    assert 'if find_spec("jaxreg") is None:\n    if Path("../pyproject.toml").is_file():' in install
    assert '%pip install -q "..[notebooks]"' in install and '%pip install -q "jaxreg[' in install


@pytest.mark.slow
@each
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as a reader has
    # without kernel folders "python3" is the Python that runs the tests, whatever else is installed
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )
    assert manager.kernel_spec is not None and manager.kernel_spec.argv[0] == sys.executable
    notebook = read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=1500,
        startup_timeout=600,
        iopub_timeout=600,
        resources=resources,
    )
    client.execute(cleanup_kc=True)  # which ends the kernel and closes the sockets
    cells = code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    assert cells[0].outputs == []  # nothing was installed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path.stem]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "Warning" not in said
