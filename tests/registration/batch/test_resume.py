"""What makes a finished result that of a pair: its settings, its networks, its files."""

import json
import shutil
from pathlib import Path

import pytest

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.serialization import as_json
from jaxreg.models.segmentation_model import SHIPPED
from jaxreg.registration.batch.pairs import FilePair
from jaxreg.registration.batch.resume import DONE, Ingredients, Methods, state_of
from jaxreg.registration.output.provenance import segmentation_sha256


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A folder of segmentation networks, named relative to the current one."""
    shutil.copytree(SHIPPED, tmp_path / "networks")
    monkeypatch.chdir(tmp_path)
    return Path("networks")


def state(config: RegisterConfig, now: RegisterConfig, out: Path, **changed) -> str:
    """The state of a result that was made by one configuration, for a run by another one."""
    record = {
        "command": as_json(config),
        "fixed": {"files": {}},
        "moving": {"files": {}},
        "model": None,
        "segmentation_sha256": segmentation_sha256(config),
        "metrics": {},
        "outputs_sha256": {},
        **changed,
    }
    out.mkdir(exist_ok=True)
    (out / "provenance.json").write_text(json.dumps(record))
    pair = FilePair("one", "fixed", "moving", {}, {})
    return state_of(out, pair, Ingredients(now, Methods()))


def test_a_result_of_other_segmentation_networks_is_not_that_of_a_pair(networks, tmp_path):
    config = RegisterConfig(optimize_only=True, segmentation=networks)
    whole = RegisterConfig(optimize_only=True, segmentation=tmp_path / "networks")
    out = tmp_path / "out"
    assert state(config, whole, out) == DONE  # the folder may be named in another way
    assert state(config, RegisterConfig(optimize_only=True), out) == DONE  # with equal networks
    other = {"coarse": "0" * 64, "fine": "0" * 64}
    found = state(config, whole, out, segmentation_sha256=other)
    assert found == "holds a result of other segmentation networks"
    never = RegisterConfig(optimize_only=True, extract="never")
    assert state(never, never, out) == DONE


def test_results_of_versions_that_did_not_name_the_networks_stand(networks, tmp_path):
    config = RegisterConfig(optimize_only=True)
    assert state(config, config, tmp_path / "out") == DONE
    path = tmp_path / "out" / "provenance.json"
    record = json.loads(path.read_text())
    del record["segmentation_sha256"]
    path.write_text(json.dumps(record))
    pair = FilePair("one", "fixed", "moving", {}, {})
    assert state_of(tmp_path / "out", pair, Ingredients(config, Methods())) == DONE
