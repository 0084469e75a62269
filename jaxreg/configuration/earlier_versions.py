"""What earlier versions stored, in today's names, so that their runs and weights still load.

A configuration that is stored now holds only what is in force. Earlier versions stored every
setting, also those that nothing read: these are left out here, since they had no effect.
"""

from typing import Any

from jaxreg.configuration.objective import LOSS_SPECS

RENAMED = {
    "cohort.vary": "augmentation.vary",
    "cohort.synth": "augmentation.synthetic_fraction",
    "cohort.cut": "augmentation.drop_hindbrain_fraction",
    "cohort.pose": "augmentation.pose_fraction",
    "again": "second_pass_fraction",
    "session.validation_pairs": "validation_pairs",
}
"""Fields of a stored configuration of stage 2, and where they are now; stage 1 read none of them.

A stored identity is flat: it has the last part of each name.
"""
_SETTINGS_OF_LOSSES = {name for spec in LOSS_SPECS.values() for name in spec.settings}
_LAST = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in RENAMED.items()}


def config_of_today(stage: str, stored: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration of a stage (`ae` or `reg`) with the fields that this version has."""
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in stored.items()}
    for old, new in RENAMED.items():
        part, _, name = old.rpartition(".")
        values = config.get(part, {}) if part else config
        if name not in values:
            continue
        value = values.pop(name)
        if stage == "reg":
            part, _, name = new.rpartition(".")
            (config.setdefault(part, {}) if part else config)[name] = value
    if "objective" in config:
        config["objective"] = _read_by_loss(config["objective"])
    if stage == "reg" and config.get("session", {}).get("validate_every") == 0:
        config.pop("validation_pairs", None)
    if config.get("network", {}).get("conditioning") == "none":
        config.get("objective", {}).pop("endpoint_fraction", None)
    return config


def identity_of_today(stage: str, stored: dict[str, Any]) -> dict[str, Any]:
    """A stored identity of a run of a stage, with the names that this version compares."""
    renamed = {_LAST.get(name, name): value for name, value in stored.items()}
    renamed.pop("convolution", None)
    if stage == "ae":
        augmentation = set(_LAST) | set(_LAST.values())
        return {name: value for name, value in stored.items() if name not in augmentation}
    if renamed.get("conditioning") == "none":
        renamed.pop("endpoint_fraction", None)
    elif renamed.get("lam", 0.0) is None:  # stored as null where it is drawn in each step
        renamed.pop("lam")
    return _read_by_loss(renamed)


def _read_by_loss(values: dict[str, Any]) -> dict[str, Any]:
    """Without the settings that the stored loss does not read."""
    spec = LOSS_SPECS.get(values.get("loss", ""))
    if spec is None:  # named where the configuration is rebuilt
        return values
    return {k: v for k, v in values.items() if k not in _SETTINGS_OF_LOSSES - {*spec.settings}}
