"""The two contrasts of a pair as a flag names them."""

import difflib

from jaxreg.errors import InputError


def domain_pair(text: str) -> tuple[str, str]:
    """(fixed, moving) of a text such as T1w,T2w.

    Raises:
        InputError: it is not two words of letters and digits with a comma between them.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isalnum() for part in parts):
        raise InputError(
            "--domains: expected FIXED,MOVING, two contrasts that a comma alone separates, such "
            f"as T1w,T2w; got {text!r}."
        )
    return parts[0], parts[1]


def domains_of_model(text: str, own: tuple[str, str]) -> tuple[str, str]:
    """(fixed, moving) of a text that names the two contrasts of a model, in either order.

    Raises:
        InputError: it names others; the message has those that they resemble.
    """
    given = domain_pair(text)
    if sorted(given) == sorted(own):
        return given
    by_name = {name.lower(): name for name in own}
    near = [difflib.get_close_matches(name.lower(), by_name, n=1) for name in given]
    meant = [by_name[found[0]] for found in near if found]
    advice = f"; did you mean {','.join(meant)}?" if sorted(meant) == sorted(own) else "."
    raise InputError(
        f"--domains: expected {own[0]} and {own[1]}, which the model registers, got {text}{advice}"
    )
