"""Released models: what is written is read again, and nothing else is taken for it."""

import io
import json
import shutil
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import NetworkConfig, RegistrationConfig
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import write
from jaxreg.models.model import (
    Defaults,
    Model,
    encoder_of,
    init_encoders,
    init_params,
    network_of,
)
from jaxreg.models.release import (
    SHIPPED,
    load_model,
    read_release,
    write_release,
)

DOMAINS = ("T1w", "T2w")


def model_of(loss: str, *, channels: str = "16,32,48,64") -> Model:
    network = NetworkConfig(channels=channels)
    config = RegistrationConfig(objective=ObjectiveConfig(loss=loss), network=network)
    contrastive = loss == "nce_mi"
    encoder = encoder_of("fold") if contrastive else None
    params = init_params(jax.random.key(0), config, encoder)
    encoders = init_encoders(DOMAINS, "fold") if contrastive else {}
    stem = "fold" if contrastive else None
    template = Volume(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.diag([2.0, 2.0, 3.0, 1]))
    return Model(config, params, encoders, 7, (2.0, 2.0, 3.0), stem, template=template)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "model"
    write_release(model_of("lncc"), folder, Defaults(0.4, 12), about="noise")
    return folder


@pytest.mark.parametrize("loss", ["lncc", "nce_mi"])
def test_a_release_is_read_as_it_was_written(tmp_path, loss):
    model = model_of(loss)
    write_release(model, tmp_path / "model", Defaults(0.4, 12), about="noise")
    read = load_model(tmp_path / "model")
    assert read.sha256 == model.sha256 and read.defaults == Defaults(0.4, 12)
    assert (read.config, read.step, read.spacing_mm) == (model.config, 7, (2.0, 2.0, 3.0))
    assert read.encoder_stem == model.encoder_stem and read.folder == tmp_path / "model"
    for parts in ("params", "encoders"):
        jax.tree.map(np.testing.assert_array_equal, getattr(read, parts), getattr(model, parts))
    assert read.template is not None and model.template is not None
    for stored, own in zip(read.template, model.template, strict=True):
        np.testing.assert_array_equal(stored, own)
    assert str(tmp_path) not in (tmp_path / "model" / "model.json").read_text()


@pytest.mark.parametrize("channels", ["8,12", "24,48,72,96", "4,4,4,4,6"])
def test_a_network_of_other_channels_is_read_and_answers_on_the_same_grid(tmp_path, channels):
    model = model_of("lncc", channels=channels)
    write_release(model, tmp_path / "model", Defaults(), about="noise")
    read = load_model(tmp_path / "model")
    assert read.config.network.channels == channels and read.sha256 == model.sha256
    stem = read.params["network"]["encoder"]["encode0"]["conv"]["kernel"]
    assert stem.shape[-1] == int(channels.partition(",")[0])
    images = jax.random.uniform(jax.random.key(1), (2, 1, 14, 18, 11, 1))
    variables = {"params": jax.tree.map(jnp.asarray, read.params["network"])}
    network: Any = network_of(read.config.network)
    velocity = network.apply(variables, *images, jnp.float32([0.5]))
    assert velocity.shape == (1, 7, 9, 6, 3) and np.isfinite(velocity).all()


@pytest.mark.parametrize("channels", ["", "16", "16,", "16,0", "16,-8", "16, 8", "a,b"])
def test_channels_are_two_numbers_or_more(channels):
    with pytest.raises(InputError, match="--channels: expected "):
        NetworkConfig(channels=channels)


def _rewritten(path, change):
    """The archive with one of its arrays changed: `change` takes name and bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)


def _as_npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


NAME = "params/network/decoder/velocity/bias.npy"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {k: v for k, v in m.items() if k != NAME}, "not those of the configuration"),
        (lambda m: {**m, NAME: _as_npy(np.ones(3, np.float32))}, "hash"),
        (lambda m: {**m, NAME: _as_npy(np.ones(3))}, "does not fit"),
        (lambda m: {**m, NAME: _as_npy(np.ones(10**6, np.float32))}, "does not fit"),
        (lambda m: {**m, NAME: _as_npy(np.array([print] * 3))}, "not a readable model"),
        (lambda m: {**m, NAME: b"?"}, "not a readable model"),
    ],
)
def test_arrays_that_are_not_the_models_are_refused(tmp_path, released, change, message):
    folder = shutil.copytree(released, tmp_path / "model")
    _rewritten(folder / "weights.npz", change)
    with pytest.raises(InputError, match=message):
        read_release(folder)


def test_another_template_is_refused_and_so_is_what_is_none(tmp_path, released):
    path = shutil.copytree(released, tmp_path / "model") / "template.nii.gz"
    other = Volume(np.full((3, 4, 5), 7, np.uint8), np.diag([2.0, 2.0, 3.0, 1]))
    write(path, other)
    with pytest.raises(InputError, match="template are not those whose hash"):
        read_release(path.parent)
    write(path, Volume(other.array.astype(np.float32), other.affine))
    with pytest.raises(InputError, match="expected a template as training writes it"):
        read_release(path.parent)
    path.unlink()
    with pytest.raises(InputError, match="template are not those whose hash"):
        read_release(path.parent)


@pytest.mark.parametrize(
    "change",
    [{"config": {"unknown": 1}}, {"register": {"nothing": 1}}, {"spacing_mm": [1]}, {"step": "?"}],
)
def test_a_description_that_says_nonsense_is_refused(tmp_path, released, change):
    folder = shutil.copytree(released, tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(described | change))
    with pytest.raises(InputError):
        read_release(folder)


def test_truncated_files_are_refused(tmp_path, released):
    for name in ("weights.npz", "model.json"):
        folder = shutil.copytree(released, tmp_path / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match="not a readable model"):
            read_release(folder)


def test_the_network_that_comes_with_the_package_is_whole_small_and_licensed():
    model = load_model(SHIPPED)
    assert model.config.cohort.domain_pair == DOMAINS and 0 < model.defaults.lam < 1
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 10_000_000
    assert "Attribution-ShareAlike 3.0" in (SHIPPED / "LICENSE").read_text()
