"""Runs and weights that an earlier version stored load, and are continued under today's names.

`runs_of_earlier_version.zip` holds a run of each stage as the version before the renaming
(`configuration/earlier_versions`) wrote them, with two parameters for a network's: stage 1 without
flags, and stage 2 with `--vary --synth=.1 --cut=.1 --pose=.1 --again=.2`.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxreg.configuration.augmentation import AugmentationConfig
from jaxreg.configuration.earlier_versions import config_of_today
from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.serialization import as_json, from_json, identity
from jaxreg.configuration.training import (
    AutoencoderConfig,
    CohortConfig,
    NetworkConfig,
    RegistrationConfig,
    SegmentationConfig,
    SegmentationNetworkConfig,
)
from jaxreg.errors import InputError
from jaxreg.models.checkpoint import Checkpoints, Meta
from jaxreg.models.model import encoder_of, init_encoders, init_params
from jaxreg.models.release import SHIPPED, load_model
from jaxreg.training import loop

AUGMENTATION = AugmentationConfig(
    vary=True, synthetic_fraction=0.1, drop_hindbrain_fraction=0.1, pose_fraction=0.1
)


@pytest.fixture
def runs(tmp_path):
    shutil.unpack_archive(Path(__file__).with_name("runs_of_earlier_version.zip"), tmp_path)
    return tmp_path


def stored(workdir) -> Meta:
    meta = Checkpoints(workdir).newest()
    assert meta is not None
    return meta


def task_of(meta, config) -> loop.Task:
    """What the loop compares of a run with this configuration, its data the stored run's."""
    contents = ("data_sha256", "spacing_mm", "structures", "encoders_sha256", "encoder_stem")
    same = {name: meta.identity[name] for name in contents if name in meta.identity}
    return loop.Task(
        stage=meta.stage,
        config=as_json(config),
        identity={**identity(config), **same},
        defaults=identity(type(config)()),
        params={},
        frozen={},
        loss=lambda *_: (jax.numpy.zeros(()), {}),
        batches=None,
        arrays=(),
        describe=lambda batch, row: "",
        validate=None,
    )


def test_a_run_of_stage_2_has_its_settings_under_todays_names(runs):
    meta = stored(runs / "reg")
    config = from_json(RegistrationConfig, meta.config)
    assert config.augmentation == AUGMENTATION
    assert config.second_pass_fraction == 0.2 and config.validation_pairs == 10
    assert config.objective == ObjectiveConfig() and config.cohort == CohortConfig()
    assert not {"synth", "cut", "pose", "again"} & set(meta.identity)


def test_a_run_of_stage_1_drops_what_it_never_read(runs):
    meta = stored(runs / "ae")
    assert from_json(AutoencoderConfig, meta.config).cohort == CohortConfig()
    assert not {"vary", "synth", "cut", "pose"} & set(meta.identity)


def test_the_same_flags_continue_each_run(runs):
    for config in (
        AutoencoderConfig(),
        RegistrationConfig(augmentation=AUGMENTATION, second_pass_fraction=0.2),
    ):
        workdir = runs / ("ae" if isinstance(config, AutoencoderConfig) else "reg")
        meta = stored(workdir)
        loop.require_same_run(workdir, meta, task_of(meta, config))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"second_pass_fraction": 0.0}, "--second-pass-fraction: expected 0.2 .stored., got 0.0"),
        ({"augmentation": AugmentationConfig()}, "--drop-hindbrain-fraction: expected 0.1"),
        ({"objective": ObjectiveConfig(loss="lncc")}, "--loss: expected nce_mi"),
        ({"objective": ObjectiveConfig(nce_locations=9)}, "--nce-locations: expected 512"),
    ],
)
def test_other_settings_are_refused_by_todays_flag(runs, changes, flag):
    meta = stored(runs / "reg")
    same = RegistrationConfig(augmentation=AUGMENTATION, second_pass_fraction=0.2)
    with pytest.raises(InputError, match=flag):
        task = task_of(meta, dataclasses.replace(same, **changes))
        loop.require_same_run(runs / "reg", meta, task)


@pytest.mark.parametrize(
    ("stage", "begun", "continued"),
    [
        (
            "reg",
            RegistrationConfig(network=NetworkConfig(convolution="slices")),
            RegistrationConfig(),
        ),
        (
            "seg",
            SegmentationConfig(network=SegmentationNetworkConfig(convolution="patches")),
            SegmentationConfig(),
        ),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_run_is_continued_with_another_form_of_the_convolutions(
    tmp_path, stage, begun, continued, named
):
    """Also where the stored identity names the form, as it did at first."""
    known = {**identity(begun), "convolution": begun.network.convolution} if named else {}
    written = Meta(stage, as_json(begun), known or identity(begun), {"position": 1}, 1)
    params = {"w": np.zeros(2, np.float32)}
    Checkpoints(tmp_path).save(written, {"trainable": params, "frozen": {}}, {"m": params})
    meta = stored(tmp_path)
    loop.require_same_run(tmp_path, meta, task_of(meta, continued))
    other = dataclasses.replace(continued.network, dtype="bfloat16")
    with pytest.raises(InputError, match="--dtype: expected float32"):
        changed = dataclasses.replace(continued, network=other)
        loop.require_same_run(tmp_path, meta, task_of(meta, changed))


def test_what_the_stored_loss_never_read_is_left_out(runs):
    values = stored(runs / "reg").config
    values["encoders"] = None
    values["objective"] |= {"loss": "lncc", "lncc_window": 5, "mi_bins": 7, "nce_locations": 9}
    config = from_json(RegistrationConfig, config_of_today("reg", values))
    assert config.objective == ObjectiveConfig(loss="lncc", lncc_window=5)


def test_the_network_of_a_run_loads_by_the_stored_configuration(runs):
    """The parameters are written anew beside the stored words, as they were."""
    meta = stored(runs / "reg")
    config = from_json(RegistrationConfig, meta.config)
    params = init_params(jax.random.key(0), config, encoder_of("fold"))
    frozen = init_encoders(("T1w", "T2w"), "fold")
    Checkpoints(runs / "whole").save(meta, {"trainable": params, "frozen": frozen}, {"m": params})
    model = load_model(runs / "whole")
    assert model.config == config and model.encoder_stem == "fold"
    for mine, other in zip(*map(jax.tree.leaves, (model.params, params)), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_shipped_weights_load_and_name_their_augmentation():
    described = json.loads((SHIPPED / "model.json").read_text(encoding="utf-8"))
    config = load_model(SHIPPED).config
    before = described["config"]["cohort"]
    shares = before["synth"], before["cut"], before["pose"]
    assert config.augmentation == AugmentationConfig(before["vary"], *shares)
    assert config.second_pass_fraction == described["config"]["again"] > 0
    assert config.objective.loss == "intra_lncc" and config.objective.label_weight == 8
