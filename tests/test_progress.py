"""Progress on terminals and in log files: phases, signs of life, bars as lines."""

import io
import re
import threading
import time

import pytest

from jaxreg import progress
from jaxreg.progress import Progress, ShownProgress, write_line


def file():
    return io.StringIO()


def terminal():
    stream = io.StringIO()
    stream.isatty = lambda: True
    return stream


def test_a_phase_begins_with_a_line_and_shows_that_it_goes_on():
    stream = io.StringIO()
    with ShownProgress(stream, seconds=0.05).phase("affine"):
        time.sleep(0.4)
    first, *others = stream.getvalue().splitlines()
    assert first == "affine …"
    assert 2 <= len(others) <= 8 and all(line.startswith("affine … 0 s") for line in others)


def test_a_phase_that_is_short_says_no_more_and_ends_with_its_error():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="damaged"), ShownProgress(stream).phase("read"):
        raise ValueError("damaged")
    assert stream.getvalue() == "read …\n"


def test_a_phase_that_is_not_announced_speaks_only_where_it_takes_long():
    stream = io.StringIO()
    shown = ShownProgress(stream, seconds=0.1)
    with shown.phase("read", announced=False):
        assert not stream.getvalue()
        time.sleep(0.3)
    assert stream.getvalue().startswith("read … 0 s so far\n")


def test_a_bar_is_lines_where_nobody_watches():
    stream = io.StringIO()
    shown = ShownProgress(stream)
    assert list(shown.each([3, 4], total=2, name="λ")) == [3, 4]
    assert stream.getvalue().splitlines() == [
        "λ: 0 of 2 in 00:00",
        "λ: 2 of 2 in 00:00, 00:00 left",
    ]


def test_lines_of_a_log_become_rare_and_those_of_a_terminal_do_not(monkeypatch):
    """Doubling from 0.05 s: after 0, 0.05, 0.15, 0.35 s, and then every 0.2 s, the longest."""
    monkeypatch.setattr(progress, "LONGEST_SECONDS", 0.2)
    times: dict[str, list[float]] = {}
    for kind in (file, terminal):
        stream, start, seen = kind(), time.monotonic(), times.setdefault(kind.__name__, [])
        with ShownProgress(stream, seconds=0.05).bar(total=900, name="pairs") as bar:
            lines = 0
            while time.monotonic() - start < 1.2:
                time.sleep(0.005)
                bar.update()  # parts that are done make no more lines
                now = len(re.split(r"[\r\n]+", stream.getvalue()))
                seen += [time.monotonic() - start] * (now - lines)
                lines = now
    gaps = [b - a for a, b in zip(times["file"][:-1], times["file"][1:], strict=True)]
    assert 5 <= len(times["file"]) <= 10 and len(times["terminal"]) > 2 * len(times["file"])
    assert max(gaps[3:]) >= 0.19 and min(gaps[3:]) >= 0.15


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
    for _ in shown.each(["sub-01", "sub-02"], total=2, name="register", unit="pairs", named=str):
        time.sleep(0.1)
    assert "sub-01" in stream.getvalue() and "sub-02" in stream.getvalue()
    if kind is file:
        assert "register: 2 of 2 pairs (sub-02) in 00:00, 00:00 left" in stream.getvalue()


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
    with ShownProgress(stream, seconds=0.05).bar(total=2, name="pairs"):
        time.sleep(0.4)
    shown = re.split(r"[\r\n]+", stream.getvalue())
    assert sum("0 of 2" in line or "0/2" in line for line in shown) >= 3


def test_work_inside_other_work_speaks_alone():
    stream = io.StringIO()
    shown = ShownProgress(stream, seconds=0.05)
    with shown.phase("deformable"), shown.bar(total=2, name="λ"):
        time.sleep(0.3)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "deformable …" and all(line.startswith("λ: ") for line in lines[1:])


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
