"""The images, masks and label maps of a BIDS data set, of one session a subject."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxreg.data.bids import derived_images, raw_images
from jaxreg.data.image_choice import (
    Candidate,
    Choice,
    Wishes,
    decide,
    entities_of,
    require_met,
    suffix_of,
    wished,
)
from jaxreg.data.prepare.source import DOMAINS, Files, Source

LABELS = ("_desc-aparcaseg_dseg", "_desc-aseg_dseg", "_dseg")
"""Ends of the names of label maps; those of the first two have FreeSurfer's numbers."""
_MASK = "_desc-brain_mask"


class _Taken(NamedTuple):
    """A subject's images, the choices among them, and why the subject is left out, if it is."""

    images: dict[str, Path]
    choices: list[Choice]
    reason: str | None = None


def bids_source(root: Path, wishes: Wishes) -> Source:
    """The images of each subject, and what belongs to its reference image among the derivatives.

    A derivative belongs to an image if its name is the image's but for `desc` and suffix: then it
    lies in the image's own space. Those of a mean of several images, or in a template's space
    (`space-…`), are not used. All subjects have the same kind of labels, since the numbers differ:
    the kind that most subjects have.

    Raises:
        InputError: a wish that no image meets.
    """
    candidates = raw_images(root, DOMAINS)
    found = [one for several in candidates.values() for one in several]
    derivatives = derived_images(root, ("mask", "dseg"))
    derived = {name: _by_kind(derivatives.get(name, [])) for name in candidates}
    if found:
        every = (one for kinds in derived.values() for several in kinds.values() for one in several)
        require_met(wishes, [*found, *every])
    taken = {name: _take(name, several, wishes) for name, several in candidates.items()}
    left_out = {name: one.reason for name, one in taken.items() if one.reason is not None}
    used = {name: one for name, one in taken.items() if one.reason is None}
    choices = [choice for one in taken.values() for choice in one.choices]
    own = {name: _own(derived[name], one.images) for name, one in used.items()}
    count = Counter(kind for kinds in own.values() for kind in kinds)
    kind = max(LABELS, key=lambda k: count[k])
    subjects = []
    for name, one in used.items():
        mask = _derivative(name, "mask", own[name].get(_MASK, []), wishes, choices)
        labels = _derivative(name, "labels", own[name].get(kind, []), wishes, choices)
        subjects.append(Files(name, one.images, mask, labels))
    return Source(subjects, left_out, False, kind != "_dseg", tuple(choices))


def _take(name: str, candidates: Sequence[Candidate], wishes: Wishes) -> _Taken:
    """One session, and in it one image of each contrast."""
    if not candidates:
        return _Taken({}, [], f"no {', '.join(DOMAINS)} in anat")
    session, choices = _take_session(name, candidates, wishes)
    if session is None:
        names = ", ".join(one.path.name for one in candidates)
        asked = " by --entities" if wishes else ""
        return _Taken({}, [], f"none of its images may be taken{asked}: {names}")
    images: dict[str, Path] = {}
    for domain in DOMAINS:
        decided = decide(name, domain, _of(candidates, session, domain), wishes)
        if decided.undecided is not None:
            return _Taken({}, choices, decided.undecided)
        if decided.path is not None:
            images[domain] = decided.path
        if decided.choice is not None:
            choices.append(decided.choice)
    return _Taken(images, choices)


def _take_session(
    name: str, candidates: Sequence[Candidate], wishes: Wishes
) -> tuple[str | None, list[Choice]]:
    """The session that has most contrasts, and the choice if it was one; None where none has any.

    Of sessions with equally many it is the one with the first of `DOMAINS`, then the first by name.
    """
    sessions = {one.entities.get("ses", ""): one for one in candidates}
    wanted, words = wished(list(sessions.values()), {k: v for k, v in wishes.items() if k == "ses"})
    ranks = {}
    for session in (one.entities.get("ses", "") for one in wanted):
        there = [d for d in DOMAINS if _wanted(candidates, session, d, wishes)]
        if there:
            ranks[session] = (-len(there), [DOMAINS.index(d) for d in there])
    if not ranks:
        return None, []
    best = min(ranks, key=lambda session: ranks[session])
    others = tuple(_session(session) for session in sessions if session != best)
    rule = "; ".join(words) or "the first session that has most contrasts"
    return best, [Choice(name, "session", _session(best), others, rule)] if others else []


def _of(candidates: Sequence[Candidate], session: str, domain: str) -> list[Candidate]:
    """The images of a contrast in a session."""
    there = [one for one in candidates if one.entities.get("ses", "") == session]
    return [one for one in there if suffix_of(one.path.name) == domain]


def _wanted(candidates, session: str, domain: str, wishes: Wishes) -> list[Candidate]:
    """Those of them that may be taken and that the user wants."""
    return wished([c for c in _of(candidates, session, domain) if c.allowed], wishes)[0]


def _session(name: str) -> str:
    return f"ses-{name}" if name else "no session"


def _by_kind(derived: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """A subject's masks and label maps by the end of their names, of every pipeline."""
    found: dict[str, list[Candidate]] = {}
    for one in derived:
        kind = _kind(one.path.name)
        if kind is not None:
            found.setdefault(kind, []).append(one)
    return found


def _kind(name: str) -> str | None:
    """Of a mask or a label map, `_desc-…_suffix` as it ends."""
    suffix, desc = suffix_of(name), entities_of(name).get("desc")
    kind = f"_{suffix}" if desc is None else f"_desc-{desc}_{suffix}"
    return kind if kind in (_MASK, *LABELS) else None


def _own(
    derived: dict[str, list[Candidate]], images: dict[str, Path]
) -> dict[str, list[Candidate]]:
    """Those of the derivatives that belong to the reference image."""
    reference = _without_desc(next(iter(images.values())).name)
    own = {
        kind: [one for one in several if _without_desc(one.path.name) == reference]
        for kind, several in derived.items()
    }
    return {kind: several for kind, several in own.items() if several}


def _without_desc(name: str) -> dict[str, str]:
    return {key: value for key, value in entities_of(name).items() if key != "desc"}


def _derivative(
    name: str,
    what: str,
    candidates: Sequence[Candidate],
    wishes: Wishes,
    choices: list[Choice],
) -> Path | None:
    """The subject's mask or label map; of several pipelines, the first one's by name."""
    pipeline = {k: v for k, v in wishes.items() if k == "pipeline"}
    left, words = wished(candidates, pipeline)
    path = left[0].path if left else None
    if len(candidates) > 1 or (candidates and not left):
        rule = "; ".join(words) or "the first pipeline by name comes first"
        others = tuple(_place(one.path) for one in candidates if one.path != path)
        choices.append(Choice(name, what, path and _place(path), others, rule))
    return path


def _place(path: Path) -> str:
    """A derivative's path from `derivatives` on."""
    return str(Path(*path.parts[len(path.parts) - path.parts[::-1].index("derivatives") :]))
