"""Both segmentation networks of a training workdir written as the files of a release.

python experiments/release_segmentation.py --workdir=RUNS --about="…" --out=DIR

RUNS holds the runs `coarse` and `fine`, as `experiments/train_segmentation.sh` leaves them.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxreg.io.atomic import completed_folder
from jaxreg.models.segmentation_model import (
    read_segmentation_model,
    write_segmentation_model,
)


@dataclass(frozen=True)
class Config:
    """What is released."""

    workdir: Path
    """Folder of the runs coarse and fine."""
    about: str
    """What the networks were trained on, and under which licence they are published."""
    out: Path
    """New folder for coarse.npz, fine.npz and model.json."""


def main() -> None:
    """Write the release and say its hashes."""
    config = tyro.cli(Config, description=__doc__)
    model = read_segmentation_model(config.workdir)
    with completed_folder(config.out) as partial:
        write_segmentation_model(partial, model.params, model.channels, about=config.about)
    written = read_segmentation_model(config.out)
    for resolution, sha256 in written.sha256.items():
        print(f"{config.out / resolution}.npz: sha256 {sha256}")


if __name__ == "__main__":
    main()
