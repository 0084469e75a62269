"""Evaluation from Python: as `jaxreg eval`, with errors that speak of arguments."""

from jaxreg.errors import speaks_of_arguments
from jaxreg.evaluation import run

evaluate = speaks_of_arguments(run.evaluate)
compare_runs = speaks_of_arguments(run.compare_runs)
