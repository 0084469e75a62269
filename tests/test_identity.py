"""What counts as the same: runs, results, models."""

import dataclasses
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.training import RegistrationConfig
from jaxreg.errors import InputError
from jaxreg.models.checkpoint import Checkpoints, Meta
from jaxreg.models.model import (
    Model,
    encoder_of,
    init_encoders,
    init_params,
    newest_run,
)
from jaxreg.registration.batch.resume import _settings
from jaxreg.registration.deformable import method
from jaxreg.training import loop


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("data_sha256", "--data"),
        ("structures", "--data"),
        ("spacing_mm", "--spacing"),
        ("encoders_sha256", "--encoders"),
        ("init_from_sha256", "--init-from"),
        ("teacher_sha256", "--teacher"),
        ("label_weight", "--label-weight"),
    ],
)
def test_a_run_that_differs_is_refused_by_the_flag_that_differs(name, flag, tmp_path):
    meta = Meta("reg", {}, {name: "a"}, {}, 1)
    task = loop.Task(
        stage="reg",
        config={},
        identity={name: "b"},
        defaults={},
        params={},
        frozen={},
        loss=lambda *_: (jax.numpy.zeros(()), {}),
        batches=None,
        arrays=(),
        describe=lambda batch, row: "",
        validate=None,
    )
    with pytest.raises(InputError, match=f"{flag}: expected a"):
        loop.require_same_run(tmp_path, meta, task)


def test_a_second_signal_does_not_break_off_the_saving():
    running = SimpleNamespace(validating=True, signum=None)
    with pytest.raises(loop._Stop):
        loop._Loop._note(running, signal.SIGTERM, None)  # pyright: ignore[reportArgumentType]
    loop._Loop._note(running, signal.SIGINT, None)  # pyright: ignore[reportArgumentType]
    assert running.signum == signal.SIGINT


def test_the_default_start_is_auto_however_it_is_written():
    plain, auto, file, none = (
        _settings({"init": init}) for init in (None, "auto", "start.mat", "none")
    )
    assert plain == auto
    assert file["init"] == "a file" and none["init"] == "none" and auto["init"] == "auto"


@pytest.mark.parametrize("flag", ["domains", "refine", "passes", "lam", "init", "model"])
def test_what_a_linear_registration_does_not_read_is_refused(flag):
    values = {"domains": "T1w,T2w", "refine": 0, "passes": 1, "lam": 0.0, "init": "rigid"}
    values["model"] = Path("folder")
    with pytest.raises(InputError, match=f"--{flag}: not read"):
        RegisterConfig(transform="rigid", **{flag: values[flag]})


def test_no_refinement_is_refused_where_none_is_read():
    with pytest.raises(InputError, match="--refine: not read"):
        RegisterConfig(optimize_only=True, refine=0)


def test_a_learned_similarity_is_one_object_for_the_same_weights():
    config = RegistrationConfig(objective=ObjectiveConfig(loss="nce_mi"))
    encoder = encoder_of("fold")
    params = init_params(jax.random.key(0), config, encoder)
    encoders = init_encoders(("T1w", "T2w"), "fold")
    models = [Model(config, params, encoders, 3, (2.0, 2.0, 2.0), "fold") for _ in range(2)]
    other = dataclasses.replace(config, objective=ObjectiveConfig(loss="nce"))
    models.append(Model(other, params, encoders, 3, (2.0, 2.0, 2.0), "fold"))
    loaded = iter(models)
    same, again, different = (
        method.load_method(RegisterConfig(), load=lambda path: next(loaded)).similarity
        for _ in range(3)
    )
    assert same is again and same is not different


def write_run(folder, step, stage="reg"):
    Checkpoints(folder).save(
        Meta(stage, {}, {}, {}, step), {"w": jax.numpy.ones(2)}, {"w": jax.numpy.ones(2)}
    )


def test_the_newest_run_is_found_at_any_depth_and_a_damaged_one_passed_over(tmp_path, capsys):
    assert newest_run(tmp_path) is None
    for n, name in enumerate(("old", "all/mi", "ae", "broken")):
        write_run(tmp_path / name, n + 1, "ae" if name == "ae" else "reg")
    for path in (tmp_path / "broken" / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert newest_run(tmp_path) == tmp_path / "all" / "mi"
    assert "broken: passed over" in capsys.readouterr().err
