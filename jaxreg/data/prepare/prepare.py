"""Subjects' scans as they come → a prepared cohort on one grid (HCP, BIDS, IXI, a table of paths).

The cohort folder is filled subject by subject and can be continued: `prepare.json` holds the
settings, `template.nii.gz` the template on the cohort's grid, and a subject's folder appears when
it is complete. The tables that make it a cohort are written last.
"""

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxreg.configuration.preparation import AUTO, PrepareConfig, parse_entities, split_counts
from jaxreg.data.cohort import SPLITS, read_structures, scoring_gaps, training_gap
from jaxreg.data.image_choice import Choice
from jaxreg.data.intensities import normalize
from jaxreg.data.prepare import layouts, template
from jaxreg.data.prepare.brains import IDENTITY, Brains, Finder, brain_of, no_finder
from jaxreg.data.prepare.freesurfer_labels import STRUCTURES
from jaxreg.data.prepare.settings import claimed_cohort
from jaxreg.data.prepare.source import Files
from jaxreg.data.prepare.subject import (
    align_head,
    prepare_subject,
    read_image,
    record_file,
    write_image,
)
from jaxreg.data.prepare.tables import remarks_of, write_tables
from jaxreg.data.prepare.template import Aligner, Head
from jaxreg.errors import InputError, first_line
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Volume, grid_of
from jaxreg.io import images
from jaxreg.io.atomic import require_writable
from jaxreg.io.images import Remark, unheard
from jaxreg.io.remarks import WARNING
from jaxreg.io.tables import write_table
from jaxreg.progress import SILENT, Progress

MEAN_ROUNDS = 2
"""How often these are aligned to their mean, after the first of them."""


class Summary(NamedTuple):
    """What came out: subjects per split, who failed or was left out and why, structures scored."""

    folder: Path
    subjects: dict[str, int]
    failed: dict[str, str]
    left_out: dict[str, str]
    remarks: list[str]
    structures: dict[int, str]
    choices: tuple[Choice, ...] = ()

    def lines(self) -> list[str]:
        """Choices, remarks, who was left out or failed and why, and the numbers."""
        left_out = [f"{name}: left out, {reason}" for name, reason in self.left_out.items()]
        failed = [f"{WARNING}{name}: failed, {reason}" for name, reason in self.failed.items()]
        counts = ", ".join(f"{count} {split}" for split, count in self.subjects.items())
        numbers = (
            f"{self.folder}: {counts}; {len(self.structures)} structures scored; "
            f"{len(self.failed)} failed, {len(self.left_out)} left out."
        )
        return [*map(str, self.choices), *self.remarks, *left_out, *failed, numbers]

    def __str__(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines())


def assign_splits(subjects: Sequence[Files], split: str | None, *, seed: int) -> dict[str, str]:
    """Participant → split: the table's own, or shuffled by the seed and dealt by the numbers.

    Without numbers they are 80/10/10, as `split_counts` reads them. Whoever they put into no split
    is not in the answer.

    Raises:
        InputError: numbers that do not fit, or a table that splits some subjects only.
    """
    own = {p.participant: p.split for p in subjects if p.split is not None}
    if own and (split is not None or len(own) < len(subjects)):
        raise InputError(
            "--split: expected this flag, or a column split with a value for every subject, not "
            f"both; got {len(own)} of {len(subjects)} subjects with a value."
        )
    if own:
        return own
    counts = split_counts(split or "80/10/10", len(subjects))
    order = (
        np.random.default_rng(seed).permutation(sorted(p.participant for p in subjects)).tolist()
    )
    splits = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(sorted(zip(order, splits, strict=False)))


def prepare(
    config: PrepareConfig,
    align: Aligner,
    *,
    find: Finder = no_finder,
    progress: Progress = SILENT,
    say: Callable[[str], object] = unheard,
) -> Summary:
    """Make or continue the cohort of a configuration; `align` is as `template` says.

    `find` finds brains and labels where the configuration wants that. `say` gets lines for the user
    before the work begins: what the cohort will not be good for.

    A subject who fails is listed (also in failures.tsv) and does not stop the others. The tables
    are written if at least half of the subjects succeeded and no split lost all of its own: a few
    bad scans are usual, more of them are a mistake that one would not want to train on.

    Raises:
        InputError: an unusable source, setting, template or output folder; too many failed.
    """
    wishes = parse_entities(config.entities) if config.entities else {}
    found = layouts.find(config.layout, config.source, wishes=wishes)
    splits = assign_splits(found.subjects, config.split, seed=config.seed)
    left_out = found.left_out | {
        f.participant: f"in no split by --split {config.split}"
        for f in found.subjects
        if f.participant not in splits
    }
    names, freesurfer = _numbers(config.labels, freesurfer=found.freesurfer)
    chosen = [files for files in found.subjects if files.participant in splits]
    automatic = config.labels == AUTO
    brains = Brains(find, config.extract, automatic)
    require_writable(config.out)
    try:
        with claimed_cohort(config, splits):
            for line in _gaps(splits, chosen, labelled=automatic):
                say(f"{WARNING}{line}")
            training = [files for files in chosen if splits[files.participant] == "train"]
            template = _template(config, training, align, brains, progress, say)

            def work(files: Files) -> None:
                prepare_subject(
                    files,
                    template,
                    config.out,
                    align,
                    brains,
                    aligned=found.aligned,
                    freesurfer=freesurfer,
                )

            failed = _each(work, chosen, config, progress)
            done = {name: split for name, split in splits.items() if name not in failed}
            _check_failures(config.out, splits, failed)
            paths = {name: record_file(config.out, name) for name in done}
            records = {name: json.loads(path.read_text()) for name, path in paths.items()}
            if names is None:
                names = structures([r["labels"] for r in records.values()], freesurfer=freesurfer)
            write_tables(config, done, records, names, found.choices)
    except OSError as error:
        raise InputError(f"{error.filename or config.out}: {error.strerror or error}.") from error
    used = [files for files in chosen if files.participant in done]
    gaps = _gaps(done, used, labelled=automatic, structures=bool(names))
    lost = [f"{WARNING}{line}" for line in gaps]
    subjects = {split: sum(s == split for s in done.values()) for split in SPLITS}
    remarks = [*remarks_of(records), *lost]
    return Summary(config.out, subjects, failed, left_out, remarks, names, found.choices)


def structures(labels: Sequence[Sequence[int]], *, freesurfer: bool) -> dict[int, str]:
    """Number → name of what is scored: found in at least half of the subjects who have labels.

    FreeSurfer's numbers are those of the standard structures; others are named label-N.
    """
    labelled = [numbers for numbers in labels if numbers]
    count = Counter(number for numbers in labelled for number in set(numbers))
    common = sorted(number for number, subjects in count.items() if 2 * subjects >= len(labelled))
    if freesurfer:
        return {number: STRUCTURES[number] for number in common if number in STRUCTURES}
    return {number: f"label-{number}" for number in common}


def _numbers(labels: str | None, *, freesurfer: bool) -> tuple[dict[int, str] | None, bool]:
    """(the structures of a table, or None; whether the numbers are FreeSurfer's)."""
    if labels is None:
        return None, freesurfer
    if labels in ("freesurfer", "own", AUTO):
        return None, labels != "own"
    names = read_structures(Path(labels))
    if not names:
        raise InputError(
            f"--labels: expected freesurfer, own, auto or a TSV of names, got {labels!r}."
        )
    return names, False


def _gaps(
    splits: dict[str, str], subjects: Sequence[Files], *, labelled: bool, structures: bool = True
) -> list[str]:
    """Lines on what cannot be trained or scored with subjects of these files in these splits.

    `labelled`: who has no labels gets automatic ones.
    """
    files = {one.participant: one for one in subjects}

    def has(participant: str, kind: str) -> bool:
        one = files[participant]
        return (labelled or one.labels is not None) if kind == "dseg" else kind in one.images

    found = [d for d in layouts.DOMAINS if any(d in one.images for one in subjects)]
    domains = (found[0], found[min(1, len(found) - 1)])
    gap = training_gap(splits, has, domains)
    lines = [] if gap is None else [f"`train --stage=reg` will refuse this cohort: {gap}."]
    return lines + scoring_gaps(splits, has, domains, structures=structures)


def _template(
    config: PrepareConfig,
    subjects: list[Files],
    align: Aligner,
    brains: Brains,
    progress: Progress,
    remark: Remark,
) -> Head:
    """What every subject is aligned to, on the cohort's grid; kept in template.nii.gz.

    `remark` gets what is unusual in the file of a template that is given.
    """
    path = config.out / "template.nii.gz"
    if not path.is_file():
        if config.template is None:
            head = _mean(subjects, config, align, brains, progress)
            grid = grid_of(head.image)
        else:
            image = read_image(config.template, remark=remark)
            head = Head(image, brain_of(config.template, image, None, brains).mask)
            grid = template.grid_over([head], [IDENTITY], config.spacing)
        write_image(path, *resampling.resample_masked(*head, IDENTITY, grid), grid)
    stored = images.read_image(path)
    mask = stored.array != 0  # as `write_image` stores it
    return Head(Volume(normalize(stored.array, mask), stored.affine), mask)


def _mean(
    subjects: list[Files],
    config: PrepareConfig,
    align: Aligner,
    brains: Brains,
    progress: Progress,
) -> Head:
    """The mean of some of those who have the most frequent first image."""
    count = Counter(next(iter(files.images)) for files in subjects)
    domain = max(layouts.DOMAINS, key=lambda d: count[d])
    subjects = template.evenly_spaced([f for f in subjects if next(iter(f.images)) == domain])
    total = len(subjects) * (MEAN_ROUNDS + 1)
    shown = progress.bar(total=total, name="template", unit="alignments")
    with shown as bar, ThreadPoolExecutor(_jobs(config)) as pool:

        def read(files: Files) -> Head:
            image = read_image(files.images[domain])
            mask = brain_of(files.images[domain], image, files.mask, brains).mask
            return template.head(image, mask)

        tried = list(pool.map(lambda files: _attempt(read, files), subjects))
        heads = [head for head, _ in tried if head is not None]
        if not heads:
            raise InputError(
                f"template: no subject's {domain} can be read; the first says: {tried[0][1]}"
            )

        def align_all(fixed: Head, heads: Sequence[Head]) -> list[np.ndarray | None]:
            def one(head: Head) -> np.ndarray:
                bar.update()
                return align_head(fixed, head, align)

            aligned = list(pool.map(lambda head: _attempt(one, head), heads))
            for reason in (reason for _, reason in aligned if reason is not None):
                progress.line(f"template: one subject less in this round's mean, {reason}")
            return [matrix for matrix, _ in aligned]

        spacing_mm = config.spacing
        return template.mean_head(heads, align_all, spacing_mm=spacing_mm, rounds=MEAN_ROUNDS)


def _jobs(config: PrepareConfig) -> int:
    return config.jobs or os.cpu_count() or 1


def _attempt(function: Callable, item: Any) -> tuple[Any, str | None]:
    """(result, None), or (None, reason) where the subject is at fault, which a full disk is not."""
    try:
        return function(item), None
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return None, first_line(error)


def _each(
    work: Callable, subjects: list[Files], config: PrepareConfig, progress: Progress
) -> dict[str, str]:
    """Work on every subject that is not done; returns the failed ones and why."""
    failed = {}
    todo = [files for files in subjects if not (config.out / files.participant).is_dir()]
    pool = ThreadPoolExecutor(_jobs(config))
    try:
        futures = {pool.submit(_attempt, work, files): files.participant for files in todo}
        with progress.bar(
            total=len(subjects), name="prepare", unit="subjects", done=len(subjects) - len(todo)
        ) as bar:
            for future in as_completed(futures):
                reason = future.result()[1]
                if reason is not None:
                    failed[futures[future]] = reason
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
    return dict(sorted(failed.items()))


def _check_failures(out: Path, splits: dict[str, str], failed: dict[str, str]) -> None:
    """List the failures; raise InputError where what is left is no cohort."""
    table = out / "failures.tsv"
    table.unlink(missing_ok=True)
    if not failed:
        return
    write_table(table, ("participant_id", "reason"), failed.items())
    left = {split for name, split in splits.items() if name not in failed}
    if 2 * len(failed) > len(splits) or left != set(splits.values()):
        name, reason = next(iter(failed.items()))
        raise InputError(
            f"{out}: {len(failed)} of {len(splits)} subjects failed, which failures.tsv lists. The "
            f"first is {name}: {reason} The others are kept; mend it and run the command again."
        )
