"""The settings and the results of `jaxreg register`, from which both interfaces are made.

The settings are the fields of the configuration, so they cannot drift from the flags.
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from jaxreg.configuration.registration import RegisterConfig

COMMAND = ("jaxreg", "register")
FOLDER = "registration"
"""Where the results go, below the folder of the step."""
RESULTS = {
    "moved": "moved.nii.gz",
    "warp": "warp.nii.gz",
    "inverse_warp": "inverse_warp.nii.gz",
    "affine": "affine.mat",
    "moved_labels": "moved_labels.nii.gz",
    "jacobian": "jacobian.nii.gz",
    "fixed_mask": "fixed_mask.nii.gz",
    "moving_mask": "moving_mask.nii.gz",
    "report": "report.html",
    "provenance": "provenance.json",
}
"""The file of each result; one that a run does not write is left undefined."""

Kind = Literal["file", "folder", "flag", "integer", "number", "text"]


class Setting(NamedTuple):
    """A setting of a registration.

    Attributes:
        name: of the field, and of the input of a step.
        flag: its flag.
        kind: what its value is.
        text: what it means, in a line.
    """

    name: str
    flag: str
    kind: Kind
    text: str


def settings() -> list[Setting]:
    """Every setting of a registration, in alphabetical order."""
    hints, texts = get_type_hints(RegisterConfig), dict(_docstrings())
    return [
        Setting(name, "--" + name.replace("_", "-"), _kind(name, hints[name]), texts[name])
        for name in sorted(RegisterConfig.__dataclass_fields__)
    ]


def _kind(name: str, hint: Any) -> Kind:
    """What a value of a type is; of several types, such as λ's, text."""
    kinds = {kind for kind in get_args(hint) if kind is not type(None)} or {hint}
    if kinds == {Path}:
        return "folder" if name in ("model", "segmentation") else "file"
    names: dict[Any, Kind] = {bool: "flag", int: "integer", float: "number"}
    return names.get(next(iter(kinds)), "text") if len(kinds) == 1 else "text"


def _docstrings() -> Iterator[tuple[str, str]]:
    """(name, docstring) of the fields of the configuration and of its bases."""
    for cls in RegisterConfig.__mro__[:-1]:
        body = ast.parse(inspect.getsource(cls).lstrip()).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            text = after.value if isinstance(after, ast.Expr) else None
            if not (isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant)):
                continue
            if isinstance(field.target, ast.Name):
                yield field.target.id, str(text.value)
