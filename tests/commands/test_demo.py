"""`jaxreg demo`: what it does where a user asks for a part of it."""

import jaxreg.data.synthetic.demo as simulated
import jaxreg.training.train as training
from jaxreg import cli
from jaxreg.commands import demo


def test_pair_only_says_that_the_installation_works_and_trains_nothing(
    tmp_path, monkeypatch, capsys
):
    made, registered = [], []
    monkeypatch.setattr(simulated, "write_demonstration_cohort", made.append)
    monkeypatch.setattr(demo, "register_first_pair", lambda data, out: registered.append(out))
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: 1 / 0)
    out = tmp_path / "demo"
    assert cli.main(["demo", "--pair-only", f"--out={out}"]) == 0
    assert made == [out / "cohort"] and registered == [out / "pair"]
    assert "The installation works." in capsys.readouterr().out
