"""`train --stage=ae` with a loss that compiles in no time: cohort, loop, checkpoints are the real.

Run by `test_distributed.py` as processes of a job: `python tests/helpers/job.py FLAGS OF TRAIN`.
"""

import sys
import time

from jaxreg import runtime

runtime.prepare()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxreg import cli, distributed  # noqa: E402
from jaxreg.configuration.serialization import as_json, identity  # noqa: E402
from jaxreg.configuration.training import AutoencoderConfig  # noqa: E402
from jaxreg.data.cohort import fingerprint  # noqa: E402
from jaxreg.data.pipeline import image_batches  # noqa: E402
from jaxreg.data.volumes import Volumes  # noqa: E402
from jaxreg.training import train  # noqa: E402
from jaxreg.training.augmentation.flip import mirrored  # noqa: E402
from jaxreg.training.loop import Task  # noqa: E402

PAUSE = "--pause"
"""With this flag a step takes a tenth of a second."""


def features(image):
    """Four numbers of an image."""
    return jnp.stack([jnp.mean(image**power) for power in (1, 2, 3)] + [jnp.ones(())])


def loss(params, frozen, sample, key):
    """A regression with noise, so that every row's key counts."""
    noise = 0.1 * jax.random.normal(key)
    error = features(sample["T1w"]) @ params["w"] - frozen["target"] + noise
    return jnp.mean(error**2), {"error": jnp.mean(jnp.abs(error))}


def task(config, cohort, *, remark):
    """The stage: members, volumes and batches as stage 1 has them."""
    members = {"T1w": cohort.members("train", "T1w")}
    train_files = [(p, "T1w") for p in members["T1w"]]
    held_out = cohort.members("val", "T1w")
    files = [*train_files, *((p, "T1w") for p in held_out)]
    volumes = Volumes(cohort, files, shared=True, remark=remark)

    def validate(params, frozen, step):
        del frozen, step
        if PAUSE in sys.argv:
            time.sleep(0.1)
        own = [volumes.scan(p, "T1w").image for p in distributed.share(held_out)]
        rows = np.array([[float(features(x) @ params["w"])] for x in own]).reshape(-1, 1)
        return {"answer": float(distributed.gather(rows).mean())}, None

    return Task(
        stage="ae",
        config=as_json(config),
        identity={
            **identity(config),
            "data_sha256": distributed.broadcast_from_primary(
                lambda: fingerprint(cohort, train_files)
            ),
        },
        defaults=identity(AutoencoderConfig()),
        params={"w": jnp.linspace(-1, 1, 4)},
        frozen={"target": jnp.ones(2)},
        loss=loss,
        batches=image_batches(
            volumes,
            members,
            seed=config.optimizer.seed,
            batch_size=config.optimizer.batch_size,
            flip=mirrored,
        ),
        arrays=("T1w",),
        describe=lambda batch, row: str(batch["T1w_index"][row]),
        validate=validate,
    )


if __name__ == "__main__":
    train.autoencoder_task = task
    flags = [flag for flag in sys.argv[1:] if flag != PAUSE]
    sys.exit(cli.main(["train", "--stage=ae", *flags]))
