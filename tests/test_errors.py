"""Whose fault an error is, and what the command ends with: its exit code, its line, its JSON."""

import errno
import json

import pytest

from jaxreg import cli
from jaxreg.errors import (
    EXIT_CODES,
    EnvironmentFailure,
    InputError,
    exit_code_of,
    kind_of,
    speaks_of_arguments,
)
from jaxreg.io.atomic import InUse, claimed
from jaxreg.registration.linear.affine import ImplausibleScales


def raised_from(error, cause):
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device")
LACKING = OSError(errno.ENOENT, "No such file or directory")
CASES = [
    (InputError("a.nii: no such file."), "input"),
    (raised_from(InputError("a.nii: not readable."), LACKING), "input"),
    (raised_from(InputError("jaxreg[cluster]"), ImportError("distributed")), "input"),
    (raised_from(InputError("out: not written."), FULL), "environment"),
    (raised_from(InputError("a"), raised_from(ValueError("b"), FULL)), "environment"),
    (InputError("out: not written (No space left on device)."), "environment"),
    (EnvironmentFailure("tcp://h:1 is gone."), "environment"),
    (MemoryError("no room"), "environment"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."), "environment"),
    (RuntimeError("itk::ERROR: Failed to allocate memory for image."), "environment"),
    (ConnectionResetError("gone"), "environment"),
    (ImportError("libcudart.so.13"), "environment"),
    (ValueError("shapes do not match"), "internal"),
    (FileNotFoundError(errno.ENOENT, "No such file"), "internal"),
    (KeyError("lam"), "internal"),
]


@pytest.mark.parametrize(("error", "kind"), CASES)
def test_an_error_is_of_the_input_the_environment_or_internal(error, kind):
    assert kind_of(error) == kind


@pytest.mark.parametrize(("error", "kind"), CASES)
def test_the_command_ends_with_the_code_of_the_kind(error, kind, monkeypatch, capsys):
    def fails(argv):
        raise error

    monkeypatch.setattr("jaxreg.commands.apply.main", fails)
    assert cli.main(["apply", "--json"]) == EXIT_CODES[kind]
    captured = capsys.readouterr()
    found = json.loads(captured.out)["error"]
    assert found["kind"] == kind and found["exit_code"] == EXIT_CODES[kind]
    assert str(error).strip("'\"") in found["reason"]
    assert ("Traceback" in captured.err) is (kind == "internal")
    last = captured.err.splitlines()[-1]
    assert last.startswith("jaxreg: ") and found["reason"] in last
    assert cli.main(["apply"]) == EXIT_CODES[kind]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([], 0),
        (["input", "internal"], 1),
        (["environment"], 75),
        (["input", "environment", "internal"], 75),
    ],
)
def test_many_that_failed_end_with_75_as_long_as_one_can_be_tried_again(kinds, code):
    assert exit_code_of(kinds) == code


def test_the_codes_differ_from_each_other_and_from_those_of_a_whole_run():
    assert len({0, 1, *EXIT_CODES.values()}) == 5


def test_a_place_that_another_run_writes_is_no_fault_of_the_input(tmp_path):
    with claimed(tmp_path / "out"), pytest.raises(InputError) as caught:
        with claimed(tmp_path / "out", seconds=0.1):
            pass
    assert kind_of(caught.value) == "environment"


@pytest.mark.parametrize("kind", [InputError, EnvironmentFailure, InUse, ImplausibleScales])
def test_an_error_that_speaks_of_arguments_keeps_its_type(kind):
    @speaks_of_arguments
    def fails(fixed_mask):
        raise kind("--fixed-mask: no.")

    with pytest.raises(InputError) as caught:
        fails(None)
    assert type(caught.value) is kind and str(caught.value) == "fixed_mask: no."
