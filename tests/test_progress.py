"""Progress for subjects and for log files: phases, signs of life, bars as lines."""

import io
import time

from jaxreg.progress import Progress, ShownProgress, bar


def test_a_phase_begins_with_a_line_and_shows_that_it_goes_on():
    stream = io.StringIO()
    with ShownProgress(stream, seconds=0.05).phase("affine"):
        time.sleep(0.4)
    first, *others = stream.getvalue().splitlines()
    assert first == "affine …"
    assert 2 <= len(others) <= 8 and all(line.startswith("affine … 0 s") for line in others)


def test_a_phase_that_is_short_says_no_more_and_ends_with_its_error():
    stream = io.StringIO()
    try:
        with ShownProgress(stream).phase("read"):
            raise ValueError("damaged")
    except ValueError:
        pass
    assert stream.getvalue() == "read …\n"


def test_a_bar_is_lines_where_nobody_watches():
    stream = io.StringIO()
    progress = ShownProgress(stream)
    assert list(progress.each([3, 4], total=2, name="λ")) == [3, 4]
    assert stream.getvalue().startswith("λ: 0 of 2 in 00:00")
    assert "\r" not in stream.getvalue()


def test_a_bar_keeps_what_stands_behind_it():
    stream = io.StringIO()
    with bar(total=2, desc="train", file=stream, mininterval=1) as shown:
        shown.update()
        shown.set_postfix({"loss": "0.5"}, refresh=False)
        shown.update()
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("train: 2 of 2") and last.endswith("loss=0.5")


def test_nothing_is_shown_where_nothing_was_asked_for(capsys):
    progress = Progress()
    with progress.phase("read"):
        assert list(progress.each(range(3), total=3, name="steps")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
