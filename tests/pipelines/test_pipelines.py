"""The nipype interface and the pydra task: their inputs are the flags, their outputs the files."""

import os
import sys
from pathlib import Path

import pytest
from registration_data import write_subject

from jaxreg.cli import main
from jaxreg.commands import flags
from jaxreg.commands.register import Config
from jaxreg.configuration.registration import OUTPUTS, RegisterConfig
from jaxreg.pipelines.fields import RESULTS, settings
from jaxreg.registration.output.folder import NAMES

os.environ["NO_ET"] = "1"  # both libraries ask a server for their newest version otherwise
nipype_interface = pytest.importorskip("jaxreg.pipelines.nipype", reason="nipype is not installed")
pydra_task = pytest.importorskip("jaxreg.pipelines.pydra", reason="pydra is not installed")
from nipype import Node, Workflow  # noqa: E402
from nipype.interfaces.base import isdefined  # noqa: E402
from nipype.interfaces.utility import IdentityInterface  # noqa: E402

FLAGS = {"transform": "rigid", "extract": "never"}
VALUES = {
    "domains": "T1w,T2w",
    "extract": "never",
    "init": "com",
    "lam": 0.25,
    "loss": "mse",
    "optimize_only": True,
    "outputs": "warp,report",
    "spacing": 4.0,
    "steps": 3,
}


@pytest.fixture(autouse=True)
def command_on_the_path(monkeypatch):
    """Both libraries call `jaxreg` as a shell does; it lies beside the Python of an environment."""
    beside = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([beside, os.environ.get("PATH", "")]))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Paths of a fixed and a moving image."""
    folder = tmp_path_factory.mktemp("pair")
    return tuple(write_subject(folder, i, d)["image"] for i, d in enumerate(("T1w", "T2w")))


def test_every_setting_is_an_input_of_both_and_every_result_a_file_of_a_run():
    names = {setting.name for setting in settings()}
    assert names == set(RegisterConfig.__dataclass_fields__)
    assert names <= set(nipype_interface.Register().inputs.get())
    assert names <= {name for name, _ in pydra_task.INPUTS.fields}
    assert set(RESULTS.values()) <= set(NAMES)
    assert set(OUTPUTS) - {"masks"} <= set(RESULTS)
    assert all(setting.text.endswith(".") for setting in settings())


def test_the_command_line_of_both_is_read_as_the_settings_that_were_given(pair):
    values = {k: v for k, v in VALUES.items() if k != "domains"}
    lines = [
        nipype_interface.Register(fixed=str(pair[0]), moving=str(pair[1]), **values).cmdline,
        pydra_task.register(fixed=pair[0], moving=pair[1], **values).cmdline,
    ]
    for line in lines:
        program, command, *argv = line.split()
        assert (program, command) == ("jaxreg", "register")
        config = flags.parse(Config, argv, prog="jaxreg register")
        assert (config.fixed, config.moving) == pair
        groups = (config.input, config.registration, config.output, config.advanced)
        found = {name: value for group in groups for name, value in vars(group).items()}
        assert {name: found[name] for name in values} == values
        assert config.output.out == Path("registration")


def test_a_nipype_workflow_hands_the_files_on(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = Node(
        nipype_interface.Register(fixed=str(pair[0]), moving=str(pair[1]), **FLAGS), "register"
    )
    after = Node(IdentityInterface(["warp"]), "after")
    workflow = Workflow("pipeline", base_dir=str(tmp_path))
    workflow.connect(step, "warp", after, "warp")
    (done,) = [node for node in workflow.run().nodes() if node.name == "register"]
    found = done.result.outputs
    assert same_warp(found.warp, pair, tmp_path)
    assert not isdefined(found.report)  # nipype keeps what another node needs


def test_a_pydra_task_gives_the_files(pair, tmp_path):
    task = pydra_task.register(fixed=pair[0], moving=pair[1], cache_dir=tmp_path / "cache", **FLAGS)
    found = task().output
    assert same_warp(str(found.warp), pair, tmp_path) and Path(str(found.report)).is_file()


def same_warp(path, pair, folder):
    """Whether a warp has the bytes of the one that the command writes."""
    alone = folder / "alone"
    given = [f"--{name}={value}" for name, value in FLAGS.items()]
    assert main(["register", *map(str, pair), f"--out={alone}", *given]) == 0
    return Path(path).read_bytes() == (alone / "warp.nii.gz").read_bytes()


def test_a_pair_that_fails_raises_with_the_line_of_the_command(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    step = nipype_interface.Register(fixed=str(bad), moving=str(pair[1]), **FLAGS)
    with pytest.raises(Exception, match=r"bad\.nii\.gz"):
        step.run()
    task = pydra_task.register(fixed=bad, moving=pair[1], cache_dir=tmp_path / "cache", **FLAGS)
    with pytest.raises(Exception, match=r"bad\.nii\.gz"):
        task()
