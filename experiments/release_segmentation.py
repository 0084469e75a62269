"""Segmentation networks of a training workdir written as the files of a release.

python experiments/release_segmentation.py --workdir=RUNS --about="…" --out=DIR

RUNS holds the runs `coarse` and `fine`, as `experiments/train_segmentation.sh` leaves them.

--start=bundled (or a folder) names the networks that the runs began with (`--init-from`). One of
the two runs may then be missing, and its network is that of the start. `--share=0.8` writes 0.8 of
the parameters of a run and 0.2 of those that it began with, which is often better than either.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxreg.errors import InputError
from jaxreg.io.atomic import completed_folder
from jaxreg.models.segmentation_model import (
    RESOLUTIONS,
    read_run,
    read_segmentation_model,
    write_segmentation_model,
)
from jaxreg.segmentation.networks import load_named_segmentation


@dataclass(frozen=True)
class Config:
    """What is released."""

    workdir: Path
    """Folder of the runs coarse and fine."""
    about: str
    """What the networks were trained on, and under which licence they are published."""
    out: Path
    """New folder for coarse.npz, fine.npz and model.json."""
    start: Path | None = None
    """bundled, or the folder of the networks that the runs began with."""
    share: float = 1.0
    """How much of a run's parameters counts, above 0; the rest is that of --start."""


def main() -> None:
    """Write the release and say its hashes."""
    config = tyro.cli(Config, description=__doc__)
    if not 0 < config.share <= 1 or (config.share < 1 and config.start is None):
        raise SystemExit("--share: expected a number above 0 and at most 1, below 1 with --start.")
    try:
        channels, params = networks_of(config)
    except InputError as error:
        raise SystemExit(str(error)) from error
    with completed_folder(config.out) as partial:
        write_segmentation_model(partial, params, channels, about=config.about)
    written = read_segmentation_model(config.out)
    for resolution, sha256 in written.sha256.items():
        print(f"{config.out / resolution}.npz: sha256 {sha256}")


def networks_of(config: Config) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """(channels, parameters) of both networks that are written."""
    if config.start is None:
        runs = {r: read_run(config.workdir / r, r) for r in RESOLUTIONS}
        return {r: run[0] for r, run in runs.items()}, {r: run[1] for r, run in runs.items()}
    start, _ = load_named_segmentation(config.start)
    channels, params = dict(start.channels), dict(start.params)
    there = [r for r in RESOLUTIONS if (config.workdir / r).is_dir()]
    if not there:
        raise InputError(f"{config.workdir}: expected a folder coarse or fine, found none.")
    for resolution in there:
        trained_channels, trained = read_run(config.workdir / resolution, resolution)
        if trained_channels != channels[resolution]:
            raise InputError(f"{config.workdir / resolution}: not a run that began with --start.")
        params[resolution] = jax.tree.map(
            lambda new, old: config.share * np.asarray(new) + (1 - config.share) * np.asarray(old),
            trained,
            params[resolution],
        )
    return channels, params


if __name__ == "__main__":
    main()
