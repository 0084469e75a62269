"""`jaxreg register` as a pydra task: `register`."""

# The library's types are incomplete: traits are made by metaclasses, specifications by attrs.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalSubscript=false
# pyright: reportReturnType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportOptionalMemberAccess=false, reportIndexIssue=false, reportPrivateImportUsage=false
# pyright: reportIncompatibleVariableOverride=false, reportOptionalCall=false

from pathlib import Path
from typing import Any

import attr
from pydra import ShellCommandTask
from pydra.engine.specs import Directory, File, ShellOutSpec, ShellSpec, SpecInfo

from jaxreg.pipelines.fields import COMMAND, FOLDER, RESULTS, Setting, settings

_TYPES = {
    "file": File,
    "folder": Directory,
    "flag": bool,
    "integer": int,
    "number": float,
    "text": Any,
}


def _input(setting: Setting) -> tuple[str, Any]:
    """The input field of a setting."""
    joined = setting.flag if setting.kind == "flag" else f"{setting.flag}={{{setting.name}}}"
    about = {"help_string": setting.text, "argstr": joined}
    return setting.name, attr.ib(type=_TYPES[setting.kind], metadata=about)


def _image(name: str, position: int) -> tuple[str, Any]:
    about = {"help_string": f"{name} image", "argstr": "", "position": position, "mandatory": True}
    return name, attr.ib(type=File, metadata=about)


def _result(field: Any, output_dir: Path, inputs: Any) -> Any:
    """The file of a result; pydra gives the arguments by their names."""
    path = Path(output_dir) / inputs.out / RESULTS[field.name]
    return path if path.is_file() else attr.NOTHING


INPUTS = SpecInfo(
    name="RegisterInput",
    fields=[
        _image("fixed", 1),
        _image("moving", 2),
        (
            "out",
            attr.ib(
                type=str,
                default=FOLDER,
                metadata={"help_string": "folder of the results", "argstr": "--out={out}"},
            ),
        ),
        *map(_input, settings()),
    ],
    bases=(ShellSpec,),
)
OUTPUTS = SpecInfo(
    name="RegisterOutput",
    fields=[
        (name, attr.ib(type=File, metadata={"help_string": file, "callable": _result}))
        for name, file in RESULTS.items()
    ],
    bases=(ShellOutSpec,),
)


def register(*, name: str = "register", **values: Any) -> ShellCommandTask:
    """A task that registers `moving` to `fixed`.

    Args:
        name: of the task in its workflow.
        **values: fixed, moving, and settings by the names of the flags, such as `transform`; or
            what else a task takes, such as `cache_dir`.

    Returns:
        The task; its outputs are the files of `RESULTS`.
    """
    return ShellCommandTask(
        name=name, executable=list(COMMAND), input_spec=INPUTS, output_spec=OUTPUTS, **values
    )
