"""A training run written as the two files of a release (jaxreg/release.py).

python experiments/release.py --model=RUN --lam=0.5 --refine=20 --passes=2 --about="…" --out=DIR
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxreg.model import Defaults, load_run
from jaxreg.release import write_release


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


def main() -> None:
    """Write the release and say its hash."""
    config = tyro.cli(Config, description=__doc__)
    model = load_run(config.model)
    defaults = Defaults(config.lam, config.refine, config.passes)
    write_release(model, config.out, defaults, about=config.about)
    print(f"{config.out}: sha256 {model.sha256}")


if __name__ == "__main__":
    main()
