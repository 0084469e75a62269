"""Progress on terminals and in log files: phases, signs of life, bars as lines."""

import contextlib
import io
import re
import threading
import time
from types import SimpleNamespace

import pytest

from jaxreg import progress
from jaxreg.progress import Progress, ShownProgress, write_line


def file():
    return io.StringIO()


def terminal():
    stream = io.StringIO()
    stream.isatty = lambda: True
    return stream


def until(condition):
    """Wait for other threads, which a busy machine may keep for long."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_phase_begins_with_a_line_and_shows_that_it_goes_on():
    stream = io.StringIO()
    with ShownProgress(stream, seconds=0.05).phase("affine"):
        until(lambda: stream.getvalue().count("\n") >= 4)
    first, *others = stream.getvalue().splitlines()
    assert first == "affine …"
    assert all(re.fullmatch(r"affine … \d+ s so far", line) for line in others)


def test_a_phase_that_is_short_says_no_more_and_ends_with_its_error():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="damaged"), ShownProgress(stream).phase("read"):
        raise ValueError("damaged")
    assert stream.getvalue() == "read …\n"


def test_a_phase_that_is_not_announced_speaks_only_where_it_takes_long():
    stream = io.StringIO()
    with ShownProgress(stream).phase("read", announced=False):
        pass
    assert not stream.getvalue()
    with ShownProgress(stream, seconds=0.1).phase("read", announced=False):
        until(stream.getvalue)
    assert re.match(r"read … \d+ s so far\n", stream.getvalue())


def test_a_bar_is_lines_where_nobody_watches():
    stream = io.StringIO()
    shown = ShownProgress(stream)
    assert list(shown.each([3, 4], total=2, name="λ")) == [3, 4]
    first, last = stream.getvalue().splitlines()
    assert re.fullmatch(r"λ: 0 of 2 in \d\d:\d\d", first)
    assert re.fullmatch(r"λ: 2 of 2 in \d\d:\d\d, \d\d:\d\d left", last)


@pytest.fixture
def hand(monkeypatch):
    """The clock of the progress, moved by hand, and nobody but the work itself who looks at it."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    patience = []

    def unwatched(self, show, patient):
        patience.append(patient)
        return contextlib.nullcontext()

    monkeypatch.setattr(ShownProgress, "_alive", unwatched)
    return now, patience


def test_lines_of_a_log_become_rare(hand, monkeypatch):
    """Doubling from 1 s: after 0, 1, 3, 7 s, and then every 4 s, the longest."""
    now, _ = hand
    monkeypatch.setattr(progress, "LONGEST_SECONDS", 4.0)
    stream, seen = io.StringIO(), []
    with ShownProgress(stream, seconds=1.0).bar(total=900, name="pairs") as bar:
        for tenth in range(200):
            now[0] = tenth / 10
            bar.update()  # parts that are done make no more lines
            seen += [now[0]] * (stream.getvalue().count("\n") - len(seen))
    assert seen == [0, 1, 3, 7, 11, 15, 19]


def test_a_bar_of_a_terminal_is_drawn_as_often_after_hours(hand):
    _, patience = hand
    for kind in (file, terminal):
        with ShownProgress(kind(), seconds=1.0).bar(total=900, name="pairs"):
            patience[-1].grow()
    assert [patient.seconds for patient in patience] == [2, 1]


def test_hours_of_work_are_a_few_dozen_lines():
    patience, spent, lines = progress._Patience(progress.SECONDS, progress.LONGEST_SECONDS), 0.0, 0
    while spent < 4 * 3600:
        spent, lines = spent + patience.seconds, lines + 1
        assert patience.seconds <= 300
        patience.grow()
    assert lines == 52  # 10, 20, 40, 80, 160, then 300 s each


@pytest.mark.parametrize("kind", [file, terminal])
def test_a_bar_says_how_the_last_part_is_named(kind):
    stream = kind()
    shown = ShownProgress(stream, seconds=0.01)
    for name in shown.each(["sub-01", "sub-02"], total=2, name="register", unit="pairs", named=str):
        if name == "sub-02":
            until(lambda: "sub-01" in stream.getvalue())
    assert kind is terminal or "register: 2 of 2 pairs (sub-02) in " in stream.getvalue()


def test_a_bar_keeps_what_stands_behind_it():
    stream = io.StringIO()
    with ShownProgress(stream).bar(total=9, name="train", unit="steps", done=7) as bar:
        bar.update()
        bar.note({"loss": 0.5})
        bar.update()
    first, last = stream.getvalue().splitlines()
    assert first.startswith("train: 7 of 9 steps")
    assert last.startswith("train: 9 of 9 steps") and last.endswith("loss=0.5")


def test_time_left_is_that_of_the_parts_that_were_done_here(monkeypatch):
    monkeypatch.setattr(progress, "_clock", lambda seconds: f"{seconds:.3f}")
    stream = io.StringIO()
    with ShownProgress(stream).bar(total=9, name="train", done=6) as bar:
        time.sleep(0.05)
        bar.update()
    ((spent, left),) = re.findall(r"7 of 9 in (\S+), (\S+) left", stream.getvalue())
    assert float(left) == pytest.approx(2 * float(spent), abs=0.002)


@pytest.mark.parametrize("kind", [file, terminal])
def test_a_bar_shows_that_it_goes_on_while_a_part_takes_long(kind):
    stream = kind()

    def times():
        lines = re.split(r"[\r\n]+", stream.getvalue())
        return sum("0 of 2" in line or "0/2" in line for line in lines)

    with ShownProgress(stream, seconds=0.05).bar(total=2, name="pairs"):
        until(lambda: times() >= 3)


def test_work_inside_other_work_speaks_alone():
    stream = io.StringIO()
    shown = ShownProgress(stream, seconds=0.05)
    with shown.phase("deformable"):
        with shown.bar(total=2, name="λ"):
            before = stream.getvalue()
            until(lambda: stream.getvalue().count("λ: ") >= 4)
            inside = stream.getvalue().removeprefix(before)
        until(lambda: stream.getvalue().splitlines()[-1].startswith("deformable … "))
    assert before.startswith("deformable …\n")
    assert all(line.startswith("λ: ") for line in inside.splitlines())


def test_threads_count_together():
    stream = io.StringIO()
    with ShownProgress(stream).bar(total=4000, name="x") as bar:

        def count():
            for _ in range(1000):
                bar.update()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stream.getvalue().splitlines()[-1].startswith("x: 4000 of 4000")


def test_lines_above_a_bar_stay_whole_and_no_bar_is_repeated_in_a_file():
    stream = io.StringIO()
    with ShownProgress(stream).bar(total=2, name="x"):
        write_line("step 5: dice 0.7", stream=stream)
    assert stream.getvalue().splitlines()[1:] == ["step 5: dice 0.7"]


def test_nothing_is_shown_where_nothing_was_asked_for(capsys):
    silent = Progress()
    with silent.phase("read"), silent.bar(total=3, name="x") as bar:
        bar.update()
        bar.note({"loss": 1.0})
        assert list(silent.each(range(3), total=3, name="steps")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
