"""Which pairs of a BIDS data set are registered, and who is left out."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxreg.configuration.bids import BidsSelection
from jaxreg.data.bids import images_outside_anat, raw_images
from jaxreg.data.image_choice import Candidate, Choice, decide, require_met, suffix_of
from jaxreg.errors import InputError


class BidsPair(NamedTuple):
    """The pair of a subject and session, `sub-01_ses-a` or `sub-01`."""

    subject: str
    session: str
    fixed: Path
    moving: Path

    @property
    def name(self) -> str:
        """Subject and session, as a file's name begins with them."""
        return f"{self.subject}_ses-{self.session}" if self.session else self.subject


class Found(NamedTuple):
    """The pairs, who is left out and why (by subject and session), and the choices made."""

    pairs: list[BidsPair]
    left_out: dict[str, str]
    choices: list[Choice]


def find_pairs(
    root: Path, selection: BidsSelection, *, template: Path | None = None
) -> tuple[Found, Found]:
    """(the pairs of a whole data set, those of the participants and sessions that are asked for).

    There is one for each subject and session: moving to fixed of one session, or to the image
    `template` where the selection asks for one.

    Of several images of a kind one is taken by the rules of `data.image_choice`; a session
    that they do not decide, or that lacks an image, is left out.

    Raises:
        InputError: no folder, a participant, session or entity that no image has, or no pair that
            is asked for.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder.")
    fixed, moving = selection.fixed_suffix, selection.moving_suffix
    suffixes = (moving,) if fixed is None else (fixed, moving)
    images = raw_images(root, suffixes)
    every = [one for several in images.values() for one in several]
    sessions = {f"ses-{one.entities['ses']}" for one in every if "ses" in one.entities}
    wanted = _labels("participant-label", selection.participant_label, "sub-", images)
    wanted_sessions = _labels("session", selection.session, "ses-", sessions)
    if every:
        require_met(selection.wishes, every)
    found = Found([], {}, [])
    for subject, candidates in images.items():
        _add(found, subject, candidates, suffixes, selection, template)
    asked = _asked(found, wanted, wanted_sessions if selection.session else None, suffixes)
    if not asked.pairs:
        first = "".join(f" The first: {n}: {r}." for n, r in [*asked.left_out.items()][:1])
        where = _misplaced(root, suffixes)
        raise InputError(f"{root}: no subject has {' and '.join(suffixes)}.{where or first}")
    return found, asked


def _misplaced(root: Path, suffixes: tuple[str, ...]) -> str:
    """A sentence where the images lie beside the folder that BIDS wants them in."""
    outside = images_outside_anat(root, suffixes)
    if not outside:
        return ""
    first = outside[0]
    return (
        f" {len(outside)} of these images lie outside the folder anat, where BIDS wants them: move "
        f"{first.relative_to(root)} to {(first.parent / 'anat' / first.name).relative_to(root)}."
    )


def _asked(
    found: Found, subjects: set[str], sessions: set[str] | None, suffixes: Sequence[str]
) -> Found:
    """What of it belongs to these subjects and sessions; every session where they are None."""

    def is_asked(name: str) -> bool:
        subject, _, session = name.partition("_ses-")
        return subject in subjects and (sessions is None or f"ses-{session}" in sessions)

    pairs = [pair for pair in found.pairs if is_asked(pair.name)]
    left_out = {name: reason for name, reason in found.left_out.items() if is_asked(name)}
    if sessions is not None:
        there = {pair.subject for pair in pairs} | {name.partition("_")[0] for name in left_out}
        reason = f"no {' or '.join(suffixes)} in {', '.join(sorted(sessions))}"
        left_out |= dict.fromkeys(sorted(subjects - there), reason)
    choices = [choice for choice in found.choices if is_asked(choice.participant)]
    return Found(pairs, left_out, choices)


def _labels(flag: str, asked: Sequence[str], prefix: str, known: Collection[str]) -> set[str]:
    """The full names (`sub-01`) that are asked for, with or without their prefix; else all."""
    names = {prefix + label.removeprefix(prefix) for label in asked}
    for name in sorted(names - set(known)):
        there = ", ".join(sorted(known)[:20]) or "none"
        raise InputError(f"--{flag}: expected one of the data set's, {there}; got {name}.")
    return names if asked else set(known)


def _add(
    found: Found,
    subject: str,
    candidates: Sequence[Candidate],
    suffixes: Sequence[str],
    selection: BidsSelection,
    template: Path | None,
) -> None:
    """Add the pairs of a subject, a session each, and the sessions that are left out."""
    sessions = sorted({one.entities.get("ses", "") for one in candidates})
    if not sessions:
        found.left_out[subject] = f"no {' or '.join(suffixes)}"
    for session in sessions:
        there = [one for one in candidates if one.entities.get("ses", "") == session]
        name = f"{subject}_ses-{session}" if session else subject
        paths = _images(found, name, there, suffixes, selection)
        if paths is not None:
            fixed = template or paths[suffixes[0]]
            moving = paths[selection.moving_suffix]
            found.pairs.append(BidsPair(subject, session, fixed.absolute(), moving.absolute()))


def _images(
    found: Found,
    name: str,
    candidates: Sequence[Candidate],
    suffixes: Sequence[str],
    selection: BidsSelection,
) -> dict[str, Path] | None:
    """The image of each suffix in a session; None where one is lacking, which is noted."""
    paths: dict[str, Path] = {}
    choices = []
    for suffix in suffixes:
        kind = [one for one in candidates if suffix_of(one.path.name) == suffix]
        decided = decide(name, suffix, kind, selection.wishes)
        if decided.path is None:
            why = " that may be taken" if kind else ""
            found.left_out[name] = decided.undecided or f"no {suffix}{why}"
            return None
        paths[suffix] = decided.path
        choices += [] if decided.choice is None else [decided.choice]
    found.choices.extend(choices)
    return paths
