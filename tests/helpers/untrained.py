"""A registration network that was not trained, for tests of what is done with its answers."""

import jax

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import CohortConfig, RegistrationConfig
from jaxreg.models.model import Model, init_params


def model_of(*, flip: bool, second_pass: float = 0.0) -> Model:
    """An untrained network whose last layer is large enough to move something."""
    config = RegistrationConfig(
        cohort=CohortConfig(flip=flip),
        objective=ObjectiveConfig(loss="lncc"),
        second_pass_fraction=second_pass,
    )
    params = init_params(jax.random.key(0), config, None)
    kernel = params["network"]["decoder"]["velocity"]["kernel"]
    params["network"]["decoder"]["velocity"]["kernel"] = 300 * kernel
    return Model(config, params, {}, 1, (2.0, 2.0, 2.0))
