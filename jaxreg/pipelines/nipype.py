"""`jaxreg register` as a nipype interface: `Register`."""

# The library's types are incomplete: traits are made by metaclasses, specifications by attrs.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalSubscript=false
# pyright: reportReturnType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportOptionalMemberAccess=false, reportIndexIssue=false, reportPrivateImportUsage=false
# pyright: reportIncompatibleVariableOverride=false, reportOptionalCall=false

import os
from typing import Any

from nipype.interfaces.base import (
    CommandLine,
    CommandLineInputSpec,
    Directory,
    File,
    TraitedSpec,
    traits,
)

from jaxreg.pipelines.fields import COMMAND, FOLDER, RESULTS, Setting, settings


def _trait(setting: Setting) -> Any:
    """The trait of a setting."""
    about = {"desc": setting.text, "argstr": f"{setting.flag}=%s"}
    if setting.kind == "flag":
        return traits.Bool(desc=setting.text, argstr=setting.flag)
    if setting.kind == "file":
        return File(exists=True, **about)
    if setting.kind == "folder":
        return Directory(exists=True, **about)
    if setting.kind == "integer":
        return traits.Int(**about)
    if setting.kind == "number":
        return traits.Float(**about)
    return traits.Either(traits.Str, traits.Float, **about)


RegisterInputSpec = type(
    "RegisterInputSpec",
    (CommandLineInputSpec,),
    {
        "__doc__": "The two images, and the settings of `jaxreg register`.",
        "__module__": __name__,
        "fixed": File(exists=True, mandatory=True, argstr="%s", position=0, desc="fixed image"),
        "moving": File(exists=True, mandatory=True, argstr="%s", position=1, desc="moving image"),
        "out": traits.Str(FOLDER, usedefault=True, argstr="--out=%s", desc="folder of the results"),
        "overwrite": traits.Bool(
            True, usedefault=True, argstr="--overwrite", desc="replace the run that is in out"
        ),
        **{setting.name: _trait(setting) for setting in settings()},
    },
)

RegisterOutputSpec = type(
    "RegisterOutputSpec",
    (TraitedSpec,),
    {
        "__doc__": "The files that `jaxreg register` has written.",
        "__module__": __name__,
        "out": Directory(exists=True, desc="folder of the results"),
        **{name: File(exists=True, desc=file) for name, file in RESULTS.items()},
    },
)


class Register(CommandLine):
    """Register a moving image to a fixed one.

    The results lie in the folder `out` below the node's own. A registration that fails raises with
    the line that the command prints.

    Examples:
        >>> from jaxreg.pipelines.nipype import Register  # doctest: +SKIP
        >>> step = Register(fixed="t1.nii.gz", moving="t2.nii.gz", transform="rigid")
        >>> step.cmdline
        'jaxreg register t1.nii.gz t2.nii.gz --out=registration --overwrite --transform=rigid'
    """

    _cmd = " ".join(COMMAND)
    input_spec = RegisterInputSpec
    output_spec = RegisterOutputSpec

    def _run_interface(self, runtime: Any, correct_return_codes: tuple[int, ...] = (0,)) -> Any:
        """Run the command; called by nipype, which itself ignores the exit code outside a node."""
        runtime = super()._run_interface(runtime, correct_return_codes)
        if runtime.returncode not in correct_return_codes:
            lines = (runtime.stderr or runtime.stdout or "").splitlines() or ["no reason was given"]
            raise RuntimeError(f"{self._cmd} ended with {runtime.returncode}: {lines[-1]}")
        return runtime

    def _list_outputs(self) -> dict[str, Any]:
        """The files that are there; called by nipype after the command."""
        outputs = self.output_spec().get()
        outputs["out"] = os.path.abspath(self.inputs.out)
        for name, file in RESULTS.items():
            path = os.path.join(outputs["out"], file)
            if os.path.isfile(path):
                outputs[name] = path
        return outputs
