"""A training run written as the files of a release (jaxreg/models/release.py).

python experiments/release.py --model=RUN --lam=0.5 --refine=16 --passes=2 --about="…" --out=DIR
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from jaxreg.models.model import Defaults, load_run
from jaxreg.models.release import load_model, write_release


@dataclass(frozen=True)
class Config:
    """What is released, and how it registers where no flag says otherwise."""

    model: Path
    """Training workdir."""
    lam: float
    """λ chosen on validation pairs."""
    refine: int
    """Steps of refinement chosen on validation pairs."""
    passes: int
    """Passes of the network chosen on validation pairs."""
    about: str
    """What the network was trained on, and under which licence it is published."""
    out: Path
    """New folder for weights.npz and model.json."""
    average: Path | None = None
    """Run or release whose parameters are averaged with the run's: of one that was the start of
    the other, the mean often keeps what each is good at (Wortsman et al., CVPR 2022)."""


def main() -> None:
    """Write the release and say its hash."""
    config = tyro.cli(Config, description=__doc__)
    model = load_run(config.model)
    if config.average is not None:
        other = load_model(config.average)
        if (other.config.network, other.encoder_stem) != (model.config.network, model.encoder_stem):
            raise SystemExit(f"{config.average}: expected the same network as {config.model}.")
        both = model.params, other.params
        model = model._replace(params=jax.tree.map(lambda a, b: np.float32(0.5) * (a + b), *both))
    defaults = Defaults(config.lam, config.refine, config.passes)
    write_release(model, config.out, defaults, about=config.about)
    print(f"{config.out}: sha256 {model.sha256}")


if __name__ == "__main__":
    main()
