"""The one policy for settings that a run does not read: refused with the reason, and not stored.

A configuration whose settings depend on each other has a property `unread`: the names of the
settings that nothing reads as the others stand, each with the reason. A name such as
`objective.endpoint_fraction` is that of a nested configuration's setting.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxreg.errors import InputError


def flag_of(name: str) -> str:
    """The flag of a setting: `objective.mi_bins` is set by `--mi-bins`."""
    return "--" + name.rpartition(".")[2].replace("_", "-")


def refuse_unread(config: Any) -> None:
    """Check that no setting which is not read was given, that is, differs from its default.

    Raises:
        InputError: one was, with the reason why it is not read.
    """
    for name, reason in unread_of(config).items():
        owner, field_name = config, name
        if "." in name:
            part, _, field_name = name.partition(".")
            owner = getattr(config, part)
        fields = {field.name: field for field in dataclasses.fields(owner)}
        if getattr(owner, field_name) != fields[field_name].default:
            raise InputError(f"{flag_of(name)}: {reason}.")


def unread_of(config: Any) -> Mapping[str, str]:
    """The settings of a configuration that nothing reads, by name, and why."""
    return getattr(config, "unread", {})
