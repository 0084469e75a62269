"""Endless, seeded, exactly resumable batches for both stages. grain is used here alone.

Every element is a function of the seed and its position, so the position is the whole cursor. Of
several processes each makes its own rows of every batch: what the rows are, and the cursor, do not
depend on how many processes there are.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from jaxreg import distributed
from jaxreg.data.cohort import Cohort, alone
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError

Flip = Callable[[np.ndarray], np.ndarray]
_MOST_THREADS = 4
"""Threads that make batches ahead of the step, at most; there is one for every four cores. A batch
of eight pairs of 80 × 96 × 80 voxels takes a core about 0.1 s, as long as a step on a GPU."""


def image_batches(
    volumes: Volumes,
    members: Mapping[str, Sequence[str]],
    *,
    seed: int,
    batch_size: int,
    flip: Flip | None,
) -> grain.DatasetIterator:
    """Batches `{domain: [b, x, y, z, 1], domain + "_index": [b]}` of unpaired images.

    `members[domain]` are the participants drawn from, one at random for each element and domain;
    indices are into them. `flip` mirrors a volume, which is done half of the time.
    """

    def draw(_, rng: np.random.Generator):
        element = {}
        for domain, subjects in members.items():
            index = int(rng.integers(len(subjects)))
            image = volumes.scan(subjects[index], domain).image
            element[domain] = _flipped(image, flip if flip and rng.random() < 0.5 else None)
            element[f"{domain}_index"] = index
        return element

    return _iterate(grain.MapDataset.range(2**31).seed(seed).random_map(draw), batch_size)


def pair_batches(
    volumes: Volumes,
    domains: tuple[str, str],
    fixed: Sequence[str],
    moving: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    flip: Flip | None,
    both_contrasts: bool = False,
    labels: bool = False,
    taught: Mapping[tuple[str, str], np.ndarray] | None = None,
) -> grain.DatasetIterator:
    """Batches of inter-subject pairs: the fields of `Pair`, and `fixed_index`, `moving_index`.

    Every epoch takes each of `fixed` once in a new order, with one of `moving` drawn at random,
    never the same subject. `flip` mirrors a volume; half of the time both are. The ignore masks
    are among the fields where a subject has one; with `both_contrasts`, the moving subject's image
    in the fixed domain is; with `labels`, the cohort's structures are, numbered from 1 in their
    order (0 elsewhere, and everywhere in subjects without labels). `taught` has the labels of some
    images by (participant, domain), so numbered; they stand where they are, and `taught` of a pair
    says so.

    Raises:
        InputError: a subject has no other subject to be paired with.
    """
    require_pairs(volumes.cohort, fixed, moving, domains[1])
    ignoring = any(volumes.cohort.file(p, "ignore").is_file() for p in {*fixed, *moving})

    def draw(f: int, rng: np.random.Generator):
        others = [m for m, subject in enumerate(moving) if subject != fixed[f]]
        m = others[int(rng.integers(len(others)))]
        applied = flip if flip and rng.random() < 0.5 else None
        fixed_scan = volumes.scan(fixed[f], domains[0])
        moving_scan = volumes.scan(moving[m], domains[1])
        element: dict[str, Any] = {"fixed_index": f, "moving_index": m}
        for role, scan in (("fixed", fixed_scan), ("moving", moving_scan)):
            element[role] = _flipped(scan.image, applied)
            element[f"{role}_mask"] = _flipped(scan.mask, applied)
            if ignoring:
                ignore = np.zeros_like(scan.mask) if scan.ignore is None else scan.ignore
                element[f"{role}_ignore"] = _flipped(ignore, applied)
        if both_contrasts:
            in_fixed_contrast = volumes.scan(moving[m], domains[0]).image
            element["moving_in_fixed_contrast"] = _flipped(in_fixed_contrast, applied)
        images = (fixed[f], domains[0]), (moving[m], domains[1])
        if labels or taught is not None:
            for role, (subject, domain) in zip(("fixed", "moving"), images, strict=True):
                found = (taught or {}).get((subject, domain))
                found = _structures(volumes, subject) if found is None else found
                element[f"{role}_labels"] = _flipped(found, applied)
        if taught is not None:
            element["taught"] = np.bool_(any(image in taught for image in images))
        return element

    source = grain.MapDataset.range(len(fixed)).seed(seed).shuffle().repeat()
    return _iterate(source.random_map(draw), batch_size)


def require_pairs(cohort: Cohort, fixed: Sequence[str], moving: Sequence[str], domain: str) -> None:
    """Raise InputError where one of `fixed` has nobody to be paired with who has the `domain`."""
    if alone(fixed, moving):
        raise InputError(
            f"{cohort.folder}: expected two subjects in the train split for a pair, "
            f"got only {', '.join(sorted(set(moving)))} with {domain}."
        )


def _structures(volumes: Volumes, subject: str) -> np.ndarray:
    """The scored structures of a subject, numbered from 1; 0 elsewhere."""
    if not volumes.cohort.file(subject, "dseg").is_file():
        return np.zeros(volumes.shape, np.uint8)
    labels, structures = volumes.labels(subject), sorted(volumes.cohort.structures)
    numbers = np.zeros(max(int(labels.max()), *structures) + 1, np.uint8)
    numbers[structures] = np.arange(1, len(structures) + 1)
    return numbers[labels]


def _iterate(dataset: grain.MapDataset, batch_size: int) -> grain.DatasetIterator:
    threads = min(max(_cores() // 4, 1), _MOST_THREADS)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    parts = dataset.batch(distributed.rows_of(batch_size), drop_remainder=True)
    own = parts[distributed.index() :: distributed.count()]
    return iter(own.to_iter_dataset(options))


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _flipped(array: np.ndarray, flip: Flip | None) -> np.ndarray:
    return array if flip is None else flip(array)
