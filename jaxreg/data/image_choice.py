"""Which of several images of one subject and contrast is taken, by the entities in their names.

A BIDS name is `sub-01_ses-a_acq-highres_run-1_T1w.nii.gz`: entities with their values, then the
suffix. First come the user's wishes, then the rules of `docs/prepare.md`; what these leave open is
not decided.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxreg.errors import InputError
from jaxreg.io.tables import write_table

Wishes = Mapping[str, Sequence[str]]
"""Entity → values, the one that is wanted most first; "" is for images without the entity."""
PLAIN_FIRST = ("ce", "space", "desc", "part", "chunk", "echo", "inv", "flip", "mt")
"""Images without these entities come before those with them: contrast agents, other spaces,
processed images, parts of a signal or a body, single echoes and inversions."""
ENDINGS = (".nii", ".nii.gz")


class Choice(NamedTuple):
    """One of several was taken: `what` is a contrast, the session, the mask or the labels.

    `taken` is the name of a file or a folder, None where none of `others` may be taken. `rule` says
    in words what decided.
    """

    participant: str
    what: str
    taken: str | None
    others: tuple[str, ...]
    rule: str

    def __str__(self) -> str:
        """The choice in a line."""
        others = ", ".join(self.others)
        return f"{self.participant}: {self.what}: {self.taken or 'none'}, not {others}; {self.rule}"


class Candidate(NamedTuple):
    """An image and the entities of its name; `session` and `pipeline` are those of its folder."""

    path: Path
    entities: dict[str, str]

    @property
    def allowed(self) -> bool:
        """Whether it may be taken at all: phase, real and imaginary parts are no such images."""
        return self.entities.get("part", "mag") == "mag"


class Decided(NamedTuple):
    """The image that is taken, None where there is none; the choice if it was one; or why not."""

    path: Path | None
    choice: Choice | None = None
    undecided: str | None = None


def candidate(path: Path, **folder: str) -> Candidate:
    """The image with the entities of its name, and those that its folders say."""
    return Candidate(path, {**folder, **entities_of(path.name)})


def entities_of(name: str) -> dict[str, str]:
    """The entities of a file's name, in their order; a part without a hyphen is one of no value."""
    parts = stem_of(name).split("_")[:-1]
    return {key: value for key, _, value in (part.partition("-") for part in parts)}


def stem_of(name: str) -> str:
    """A file's name without .nii or .nii.gz."""
    return name.removesuffix(".gz").removesuffix(".nii")


def suffix_of(name: str) -> str:
    """The last part of an image's name, such as T1w; nothing for other files."""
    return stem_of(name).split("_")[-1] if name.endswith(ENDINGS) else ""


def wished(candidates: Sequence[Candidate], wishes: Wishes) -> tuple[list[Candidate], list[str]]:
    """(those that the user wants, her wishes that left some out, in words).

    Of the values of an entity the first counts that one of the candidates has. Where none of them
    has any, those without the entity remain.
    """
    left, words = list(candidates), []
    for entity, values in wishes.items():
        kept = [c for c in left if entity not in c.entities]
        for value in values:
            having = [c for c in left if _has(c, entity, value)]
            if having:
                kept = having
                break
        if len(kept) < len(left):
            words.append(f"--entities {','.join(f'{entity}={value}' for value in values)}")
        left = kept
    return left, words


def by_rules(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[str]]:
    """(those that the rules leave, which is one where they decide; the rules that left some out).

    Plain images come first (`PLAIN_FIRST`); of repeats that differ in nothing but their run, the
    lowest number.
    """
    left, words = list(candidates), []
    for entity in PLAIN_FIRST:
        plain = [c for c in left if entity not in c.entities]
        if 0 < len(plain) < len(left):
            words.append(f"an image without {entity}- comes first")
            left = plain
    others = {tuple((k, v) for k, v in c.entities.items() if k != "run") for c in left}
    runs = [_number(c.entities.get("run", "0")) for c in left]
    if len(left) > 1 and len(others) == 1 and None not in runs:
        lowest = min(run for run in runs if run is not None)
        first = [c for c, run in zip(left, runs, strict=True) if run == lowest]
        if len(first) < len(left):
            words.append("the lowest run comes first")
            left = first
    return left, words


def decide(participant: str, what: str, candidates: Sequence[Candidate], wishes: Wishes) -> Decided:
    """Which of a participant's images of one contrast and session (`what`) is taken."""
    wanted, words = wished([one for one in candidates if one.allowed], wishes)
    left, rules = by_rules(wanted)
    if len(left) > 1:
        return Decided(None, undecided=_undecided(what, left))
    path = left[0].path if left else None
    others = tuple(one.path.name for one in candidates if one not in left)
    if not others:
        return Decided(path)
    if not all(one.allowed for one in candidates):
        words.insert(0, "phase, real and imaginary parts are never taken")
    rule = "; ".join([*words, *rules])
    return Decided(path, Choice(participant, what, path and path.name, others, rule))


def write_choices(path: Path, choices: Iterable[Choice]) -> None:
    """Write `choices.tsv`, a row for each choice; n/a where nothing was taken.

    Raises:
        InputError: it cannot be written.
    """
    rows = ((c.participant, c.what, c.taken or "n/a", ",".join(c.others), c.rule) for c in choices)
    write_table(path, ("participant_id", "of", "taken", "not_taken", "rule"), rows)


def require_met(wishes: Wishes, candidates: Iterable[Candidate]) -> None:
    """Raise InputError for a wish that no image of the whole source meets: it is misspelled."""
    known: dict[str, set[str]] = {}
    for one in candidates:
        for entity, value in one.entities.items():
            known.setdefault(entity, set()).add(value)
    for entity, values in wishes.items():
        if entity not in known:
            names = ", ".join(sorted(known)) or "none"
            raise InputError(f"--entities: no image has {entity}-; their entities are {names}.")
        for value in values:
            if value and not any(_same(value, other) for other in known[entity]):
                there = ", ".join(f"{entity}-{other}" for other in sorted(known[entity]))
                raise InputError(
                    f"--entities {entity}={value}: no image has it; there are {there}."
                )


def _undecided(what: str, several: Sequence[Candidate]) -> str:
    """Why the rules do not decide, and the flag that does."""
    names = ", ".join(one.path.name for one in several)
    keys = sorted({key for one in several for key in one.entities})
    differing = [k for k in keys if len({one.entities.get(k) for one in several}) > 1]
    if not differing:
        places = ", ".join(str(one.path) for one in several)
        return f"several {what} of one name: {places}; remove all but one"
    entity = differing[0]
    value = next(one.entities[entity] for one in several if entity in one.entities)
    return f"several {what}: {names}; choose one, such as by --entities {entity}={value}"


def _has(one: Candidate, entity: str, value: str) -> bool:
    if not value:
        return entity not in one.entities
    return entity in one.entities and _same(value, one.entities[entity])


def _same(value: str, other: str) -> bool:
    """Whether two values are one; 1 and 01 are."""
    return value == other or (_number(value) is not None and _number(value) == _number(other))


def _number(value: str) -> int | None:
    return int(value) if value.isdecimal() else None
