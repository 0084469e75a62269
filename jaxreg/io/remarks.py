"""What readers remarked on many files, as few lines."""

import re
from collections.abc import Iterable

WARNING = "warning: "
"""How a line begins that --quiet does not silence."""
MOST = 3
"""Files that are named with one remark; the others are counted."""


def grouped(lines: Iterable[str]) -> list[str]:
    """Lines without repeats; of more than `MOST` that say the same of files, one with a count.

    A line is `FILE: what is remarked`, maybe after `WARNING`. Numbers in it may differ.
    """
    kinds: dict[str, list[str]] = {}
    for line in dict.fromkeys(lines):
        warning = WARNING if line.startswith(WARNING) else ""
        text = line.removeprefix(WARNING).partition(": ")[2]
        kinds.setdefault(warning + re.sub(r"\d[\d.]*", "#", text), []).append(line)
    found = []
    for same in kinds.values():
        if len(same) <= MOST:
            found += same
        else:
            found.append(f"{same[0].removesuffix('.')} (and so in {len(same) - 1} more files)")
    return found
