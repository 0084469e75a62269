"""The encoders of the contrastive losses: what a segmentation network serves for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import BUNDLED_ENCODERS, RegistrationConfig
from jaxreg.errors import InputError
from jaxreg.training import encoders


@pytest.mark.parametrize(("taps", "taken"), [("0,1,2", False), ("2", False), ("0,1", True)])
def test_scales_that_a_segmentation_network_lacks_are_refused(monkeypatch, taps, taken):
    model = SimpleNamespace(channels={"fine": (8, 8, 8)}, params={"fine": {}})  # two scales
    monkeypatch.setattr(encoders, "load_segmentation", lambda folder: (model, None))
    config = RegistrationConfig(
        objective=ObjectiveConfig(loss="nce", taps=taps), encoders=Path(BUNDLED_ENCODERS)
    )
    if taken:
        encoder, _, _ = encoders.load_encoders(config)
        assert len(encoder.channels) == 2
        return
    with pytest.raises(InputError, match="--taps: expected scales below 2, as the segmentation"):
        encoders.load_encoders(config)
