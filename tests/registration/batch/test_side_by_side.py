"""Several jobs at once: all results, never too many at a time, the first one alone."""

import threading
import time

import pytest

from jaxreg.registration.batch.side_by_side import side_by_side


class Watched:
    """A job that knows how many of it run at once, and waits until that was `wanted` once."""

    def __init__(self, wanted: int = 1):
        """Nothing runs yet."""
        self.lock, self.running, self.most, self.begun = threading.Lock(), 0, 0, []
        self.wanted = wanted

    def __call__(self, item: int) -> int:
        """The square of a number, after a while."""
        with self.lock:
            self.running += 1
            self.begun.append((item, self.running))
            self.most = max(self.most, self.running)
        end = time.monotonic() + 60
        while item and self.most < self.wanted and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.02 if item % 2 else 0.05)
        with self.lock:
            self.running -= 1
        return item * item


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_all_results_come_and_the_first_job_is_alone(at_once):
    job = Watched(at_once)
    found = list(side_by_side(job, range(8), at_once))
    assert sorted(found) == [n * n for n in range(8)]
    assert job.most == at_once and job.begun[0] == (0, 1) and job.begun[1][1] == 1
    if at_once == 1:
        assert found == [n * n for n in range(8)]


def test_no_job_is_begun_after_results_are_no_longer_taken():
    job = Watched()
    results = side_by_side(job, range(100), 2)
    assert len([next(results), next(results)]) == 2
    results.close()
    assert job.running == 0 and len(job.begun) <= 5


def test_an_interruption_in_a_job_ends_the_others_in_order():
    def job(item: int) -> int:
        if item == 2:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        list(side_by_side(job, range(50), 2))


def test_nothing_to_do_gives_nothing():
    assert list(side_by_side(Watched(), [], 2)) == []
