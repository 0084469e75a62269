"""The data pipeline: who is paired with whom, seeds, epochs, resuming, flips."""

import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxreg import distributed
from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.configuration.training import CohortConfig, OptimizerConfig, RegistrationConfig
from jaxreg.data import pipeline
from jaxreg.data.cohort import read_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io import images
from jaxreg.training import registration
from jaxreg.training.augmentation.flip import mirrored

SHAPE = (8, 6, 5)
TRAIN = ("sub-01", "sub-02", "sub-03", "sub-04", "sub-05")
HELD_OUT = {"sub-06": "val", "sub-07": "val", "sub-08": "test", "sub-09": "test"}
DOMAINS = ("T1w", "T2w")
ENTRIES = {"fixed", "moving", "fixed_mask", "moving_mask", "fixed_index", "moving_index"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "cohort"
    rng = np.random.default_rng(0)
    splits = {**dict.fromkeys(TRAIN, "train"), **HELD_OUT}
    for subject, domain in itertools.product(splits, DOMAINS):
        (folder / subject).mkdir(parents=True, exist_ok=True)
        image = rng.uniform(0.2, 1, SHAPE).astype(np.float32) * (rng.random(SHAPE) < 0.7)
        path = folder / subject / f"{subject}_{domain}.nii.gz"
        images.write(path, Volume(image.astype(np.float32), np.diag([2.0, 2, 2, 1])))
    rows = "".join(f"{p}\t{s}\n" for p, s in splits.items())
    (folder / "participants.tsv").write_text("participant_id\tsplit\n" + rows)
    return folder


@pytest.fixture(scope="session")
def volumes(folder):
    return Volumes(read_cohort(folder), itertools.product(TRAIN, DOMAINS))


def pairs(volumes, *, domains=DOMAINS, fixed=TRAIN, moving=TRAIN, seed=0, batch_size=1, flip=False):
    return pipeline.pair_batches(
        volumes,
        domains,
        fixed,
        moving,
        seed=seed,
        batch_size=batch_size,
        flip=mirrored if flip else None,
    )


def unpaired(volumes, *, seed=0, batch_size=1, flip=False):
    members = {"T1w": TRAIN, "T2w": TRAIN[:3]}
    return pipeline.image_batches(
        volumes, members, seed=seed, batch_size=batch_size, flip=mirrored if flip else None
    )


def indices(batches, count):
    taken = [next(batches) for _ in range(count)]
    return [
        (int(f), int(m))
        for batch in taken
        for f, m in zip(batch["fixed_index"], batch["moving_index"], strict=True)
    ]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_batch_holds_what_its_indices_say(volumes):
    batch = next(pairs(volumes, batch_size=3))
    assert batch.keys() == ENTRIES
    for row in range(3):
        for role, domain in zip(("fixed", "moving"), DOMAINS, strict=True):
            scan = volumes.scan(TRAIN[batch[f"{role}_index"][row]], domain)
            np.testing.assert_array_equal(batch[role][row], scan.image)
            np.testing.assert_array_equal(batch[f"{role}_mask"][row], scan.mask)
    assert batch["fixed"].shape == (3, *SHAPE, 1) and batch["fixed_mask"].dtype == bool


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_nobody_is_paired_with_themselves_and_everybody_is_fixed_once_an_epoch(
    volumes, seed, batch_size
):
    epochs = 12  # divisible by every batch size
    got = indices(pairs(volumes, seed=seed, batch_size=batch_size), epochs * 5 // batch_size)
    assert all(f != m for f, m in got)
    orders = [tuple(f for f, _ in got[5 * e : 5 * e + 5]) for e in range(epochs)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len(set(orders)) > 1
    assert len(set(got)) > 12  # of the 20 ordered pairs


def test_people_with_one_domain_only_are_paired_by_name_not_by_place(volumes):
    fixed, moving = TRAIN[:3], TRAIN[2:]
    got = indices(pairs(volumes, fixed=fixed, moving=moving), 60)
    assert {(fixed[f], moving[m]) for f, m in got} == {
        (f, m) for f, m in itertools.product(fixed, moving) if f != m
    }


@pytest.mark.parametrize("make", [pairs, unpaired])
def test_equal_seeds_give_equal_batches_and_other_seeds_others(volumes, make):
    one, same, other = (make(volumes, seed=s, flip=True) for s in (3, 3, 4))
    first, second, third = ([next(b) for _ in range(8)] for b in (one, same, other))
    for a, b in zip(first, second, strict=True):
        assert_same(a, b)
    assert any(not np.array_equal(a[k], b[k]) for a, b in zip(first, third, strict=True) for k in a)


@pytest.mark.parametrize("make", [pairs, unpaired])
@pytest.mark.parametrize("taken", [0, 1, 7])
def test_the_state_resumes_exactly_after_prefetch_too(volumes, make, taken):
    batches = make(volumes, flip=True, batch_size=2)
    for _ in range(taken):
        next(batches)
    state = batches.get_state()
    wanted = [next(batches) for _ in range(6)]
    fresh = make(volumes, flip=True, batch_size=2)
    fresh.set_state(state)
    used = make(volumes, flip=True, batch_size=2)
    for _ in range(4):  # its prefetch buffer is full of other batches
        next(used)
    used.set_state(state)
    for batch in wanted:
        assert_same(next(fresh), batch)
        assert_same(next(used), batch)


@pytest.mark.parametrize("make", [pairs, unpaired])
def test_batches_and_their_state_do_not_depend_on_the_number_of_threads(volumes, make, monkeypatch):
    one = make(volumes, flip=True, batch_size=2)
    monkeypatch.setattr(pipeline, "_cores", lambda: 64)
    several = make(volumes, flip=True, batch_size=2)
    for _ in range(9):
        assert_same(next(several), next(one))
        assert several.get_state() == one.get_state()
    fresh = make(volumes, flip=True, batch_size=2)
    fresh.set_state(one.get_state())
    assert_same(next(fresh), next(one))


@pytest.mark.parametrize("make", [pairs, unpaired])
def test_a_batch_smaller_than_the_processes_is_refused_by_its_flag(volumes, make, monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 2)
    with pytest.raises(InputError, match="--batch-size: expected a multiple of the 2 processes"):
        make(volumes, batch_size=1)


def test_a_volume_that_several_threads_ask_for_is_counted_once(folder):
    volumes = Volumes(read_cohort(folder), [("sub-01", "T1w")], memory_bytes=0)
    volumes._budget = 10**9
    together = threading.Barrier(6)

    def read(_):
        together.wait()
        return volumes.scan("sub-01", "T1w")

    with ThreadPoolExecutor(6) as pool:
        scans = list(pool.map(read, range(6)))
    assert volumes._budget == 10**9 - scans[0].image.nbytes - scans[0].mask.nbytes
    assert all(scan is scans[0] for scan in scans)


@pytest.mark.parametrize("taken", [1, 5])
def test_reading_ahead_does_not_move_the_state(volumes, taken):
    batches = pairs(volumes)
    for _ in range(taken):
        next(batches)
    before = batches.get_state()
    assert batches.get_state() == before
    next(batches)
    assert batches.get_state() != before


def test_a_flip_mirrors_images_and_masks_of_a_pair_alike_along_axis_0(volumes):
    flipped, plain = set(), pairs(volumes)
    for batch in itertools.islice(pairs(volumes, flip=True), 30):
        subjects = [TRAIN[batch[f"{role}_index"][0]] for role in ("fixed", "moving")]
        scans = [volumes.scan(p, d) for p, d in zip(subjects, DOMAINS, strict=True)]
        arrays = [a for scan in scans for a in (scan.image, scan.mask)]
        names = ("fixed", "fixed_mask", "moving", "moving_mask")
        mirrored = not np.array_equal(batch["fixed"][0], arrays[0])
        for name, array in zip(names, arrays, strict=True):
            np.testing.assert_array_equal(batch[name][0], array[::-1] if mirrored else array)
        flipped.add(mirrored)
        assert next(plain)["fixed_index"] == batch["fixed_index"]
    assert flipped == {True, False}


def test_image_batches_mirror_some_and_draw_from_each_domains_own_people(volumes):
    seen, flipped = {"T1w": set(), "T2w": set()}, set()
    for batch in itertools.islice(unpaired(volumes, flip=True), 40):
        assert batch.keys() == {"T1w", "T1w_index", "T2w", "T2w_index"}
        for domain, subjects in seen.items():
            index = int(batch[f"{domain}_index"][0])
            image = volumes.scan(TRAIN[index], domain).image
            mirrored = not np.array_equal(batch[domain][0], image)
            np.testing.assert_array_equal(batch[domain][0], image[::-1] if mirrored else image)
            subjects.add(index)
            flipped.add(mirrored)
    assert seen == {"T1w": set(range(5)), "T2w": set(range(3))} and flipped == {True, False}


def test_one_domain_twice_gives_pairs_of_different_people(volumes):
    batch = next(pairs(volumes, domains=("T1w", "T1w"), batch_size=4))
    for row in range(4):
        f, m = batch["fixed_index"][row], batch["moving_index"][row]
        assert f != m
        np.testing.assert_array_equal(batch["moving"][row], volumes.scan(TRAIN[m], "T1w").image)


@pytest.mark.parametrize("fixed", [TRAIN[:1], TRAIN[:3]])
def test_one_subject_with_nobody_else_is_refused(volumes, fixed):
    with pytest.raises(InputError, match="two subjects"):
        pairs(volumes, fixed=fixed, moving=TRAIN[:1])


def test_one_moving_subject_serves_others(volumes):
    got = indices(pairs(volumes, fixed=TRAIN[:2], moving=TRAIN[2:3]), 6)
    assert {m for _, m in got} == {0}


def test_two_subjects_are_enough(volumes):
    got = indices(pairs(volumes, fixed=TRAIN[:2], moving=TRAIN[:2]), 6)
    assert set(got) == {(0, 1), (1, 0)}


def test_batches_larger_than_an_epoch_are_full(volumes):
    batch = next(pairs(volumes, batch_size=12))
    assert batch["fixed"].shape[0] == 12
    assert (batch["fixed_index"] != batch["moving_index"]).all()


def test_volumes_read_on_demand_give_the_same_batches(folder, volumes):
    lean = Volumes(read_cohort(folder), itertools.product(TRAIN, DOMAINS), memory_bytes=0)
    kept, read = pairs(volumes, flip=True), pairs(lean, flip=True)
    for _ in range(6):
        assert_same(next(kept), next(read))


def test_training_reads_the_train_split_and_validation_but_never_the_test_split(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(registration, "init_params", lambda *_: {})  # seconds, and not used here
    own = shutil.copytree(folder, tmp_path / "cohort")
    for subject, split in HELD_OUT.items():
        if split == "test":
            for domain in DOMAINS:
                (own / subject / f"{subject}_{domain}.nii.gz").write_bytes(b"not a volume")
    config = RegistrationConfig(
        cohort=CohortConfig(data=own),
        optimizer=OptimizerConfig(steps=1, batch_size=5),
        objective=ObjectiveConfig(loss="mi"),
    )
    task = registration.registration_task(config, read_cohort(own))
    words = {task.describe(b, r) for b in itertools.islice(task.batches, 6) for r in range(5)}
    assert words and not any(subject in word for word in words for subject in HELD_OUT)


def test_ignore_masks_come_along_flipped_where_anybody_has_one(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "cohort")
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[1, 2:4, 3] = 1
    images.write(own / "sub-02" / "sub-02_ignore.nii.gz", Volume(lesion, np.diag([2.0, 2, 2, 1])))
    batches = pairs(Volumes(read_cohort(own), itertools.product(TRAIN, DOMAINS)), flip=True)
    seen = set()
    for batch in itertools.islice(batches, 30):
        assert batch.keys() == ENTRIES | {"fixed_ignore", "moving_ignore"}
        for role in ("fixed", "moving"):
            got = batch[f"{role}_ignore"][0]
            if TRAIN[batch[f"{role}_index"][0]] == "sub-02":
                mirrored = bool(got[SHAPE[0] - 2, 2, 3])
                np.testing.assert_array_equal(got, (lesion[::-1] if mirrored else lesion) != 0)
                seen.add(mirrored)
            else:
                assert not got.any()
    assert seen == {False, True}
