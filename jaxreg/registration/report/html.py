"""Self-contained pages from the files in `templates/`, and the page of a run that failed.

A page opens from the file system and loads nothing, and its policy forbids every request and every
script but its own. Jinja escapes all text. JAX is not imported here, so that a refused input has
its page soon.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jaxreg.io.atomic import completed

_NOT_GIVEN = ("null", "[]", "{}")
"""How JSON has settings that were not given; the page of a run that failed leaves them out."""
_FOLDER = Path(__file__).parent / "templates"
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def write_failure_report(path: Path | str, reason: str, provenance: Mapping[str, Any]) -> None:
    """Write the page of a registration that failed: the reason, and what was known by then.

    Raises:
        InputError: the folder does not exist, or the page cannot be written.
    """
    write_page(
        path,
        "failure.html",
        script="",
        title="Registration failed",
        reason=reason,
        provenance=[(name, value) for name, value in flat(provenance) if value not in _NOT_GIVEN],
    )


def write_page(
    path: Path | str,
    template: str,
    *,
    script: str,
    styles: Sequence[str] = ("page.css",),
    **parts: Any,
) -> None:
    """Write a self-contained page from a template, its style files, its script and its parts.

    Raises:
        InputError: the folder does not exist, or the page cannot be written.
    """
    style = "".join(page_file(name) for name in styles)
    page = _TEMPLATES.get_template(template).render(
        style=Markup(style),
        style_hash=_source_hash(style),
        script=Markup(script),
        script_hash=_source_hash(script),
        **parts,
    )
    with completed(path) as temporary:
        temporary.write_bytes(page.encode("utf-8"))


def flat(tree: Mapping[str, Any], *, prefix: str = "") -> Iterable[tuple[str, str]]:
    """(dotted name, value) of every leaf, sorted by name."""
    for name in sorted(tree, key=str):
        value = tree[name]
        if isinstance(value, Mapping):
            yield from flat(value, prefix=f"{prefix}{name}.")
        else:
            leaf = value if isinstance(value, str) else json.dumps(value, default=str)
            yield f"{prefix}{name}", leaf


def script_json(value: Any) -> Markup:
    """JSON that no parser of HTML can leave: without <, > and &."""
    dumped = json.dumps(value, sort_keys=True)
    return Markup(re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", dumped))


def _source_hash(source: str) -> Markup:
    """The source expression of an inline block in a Content-Security-Policy."""
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")


def page_file(name: str) -> str:
    """The text of a file in `templates`."""
    return (_FOLDER / name).read_text(encoding="utf-8")
