"""The examples in docstrings, run as tests."""

import doctest
from typing import Any

import jaxreg


def run_examples(function: Any) -> None:
    """Run the example of a docstring in the working directory; AssertionError where it differs."""
    finder, names = doctest.DocTestFinder(), {"jaxreg": jaxreg}
    test = finder.find(function, function.__name__, globs=names)[0]
    assert test.examples
    said: list[str] = []
    doctest.DocTestRunner().run(test, out=said.append)
    assert not said, "".join(said)
