"""The display: what a terminal shows, what a log gets, and that no text can break either."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console

from engine.system.display import Display, LiveDisplay, PlainDisplay, Snapshot, duration, facts
from engine.system.screen import open_display

SNAPSHOT = Snapshot(
    done=12,
    total=1200,
    tokens=3456,
    tokens_per_s=1234.5,
    interventions=312,
    effective=208,
    graded=8,
    correct=2,
    elapsed_s=31.4,
    eta_s=3700.0,
)


class Clock:
    """Time that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def live(width: int = 100, height: int = 25) -> tuple[LiveDisplay, io.StringIO]:
    stream = io.StringIO()
    return (
        LiveDisplay(
            Console(file=stream, force_terminal=True, width=width, height=height, _environ={})
        ),
        stream,
    )


def show_everything(display: Display) -> None:
    with display:
        display.stage("loading [bold]base[/] and /models/[red]")
        display.note("pair 0 failed: [/nonsense] in [0.1]")
        display.update(SNAPSHOT)


def test_a_stream_that_is_no_terminal_gets_plain_lines() -> None:
    stream = io.StringIO()
    show_everything(open_display(stream))
    assert stream.getvalue().splitlines() == [
        "loading [bold]base[/] and /models/[red]",
        "pair 0 failed: [/nonsense] in [0.1]",
        (
            "12/1,200 sequences, 1,234 tokens/s, 312 interventions (208 effective), accuracy 25.0%"
            " of 8 graded, 0:31 elapsed, ETA 1:01:40"
        ),
    ]


def test_a_terminal_gets_the_live_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert isinstance(open_display(stream), LiveDisplay)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert isinstance(open_display(stream), PlainDisplay)


def test_the_default_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display() as display:
        display.note("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_plain_numbers_come_at_most_every_five_seconds_and_the_last_always(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainDisplay(stream, clock) as display:
        for done in range(1, 25):
            display.update(replace(SNAPSHOT, done=done))
            clock.now += 0.5
    assert [line.split("/")[0] for line in stream.getvalue().splitlines()] == [
        "1",
        "11",
        "21",
        "24",
    ]


def test_a_snapshot_that_was_shown_is_not_shown_again_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainDisplay(stream, clock) as display:
        display.update(SNAPSHOT)
    assert len(stream.getvalue().splitlines()) == 1


def test_before_the_first_token_plain_lines_name_the_stage(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainDisplay(stream, clock) as display:
        display.stage("loading base and rl")
        display.update(replace(SNAPSHOT, done=0, tokens=0))
    assert stream.getvalue().splitlines()[1] == "still loading base and rl, 0:31"


def test_a_run_that_was_complete_already_shows_its_numbers(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainDisplay(stream, clock) as display:
        display.update(replace(SNAPSHOT, done=1200, tokens=0))
    assert stream.getvalue().startswith("1,200/1,200 sequences")


def test_plain_texts_are_one_line_each(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainDisplay(stream, clock) as display:
        display.note("first\n  second\ttail")
    assert stream.getvalue() == "first second tail\n"


def test_the_live_panel_shows_markup_as_text() -> None:
    display, stream = live()
    show_everything(display)
    assert "pair 0 failed: [/nonsense] in [0.1]" in stream.getvalue()


def test_the_live_panel_shows_the_stage_while_it_works_and_the_numbers_at_the_end() -> None:
    display, stream = live()
    with display:
        display.stage("loading [base] and rl")
        display.note("what is written above redraws the panel")
        assert "loading [base] and rl" in stream.getvalue()
        display.update(SNAPSHOT)
        so_far = len(stream.getvalue())
    final = stream.getvalue()[so_far:]
    words = " ".join(final.split())
    assert "12/1,200 sequences" in words and "(208 effective)" in words and "loading" not in words
    assert max(map(len, re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]|\r", "", final).splitlines())) <= 100


@pytest.mark.parametrize("width", [1, 2, 10, 39])
def test_a_narrow_terminal_does_not_break_the_panel(width: int) -> None:
    display, stream = live(width, height=3)
    show_everything(display)
    assert stream.getvalue()


def test_the_cursor_comes_back_after_an_error() -> None:
    display, stream = live()
    with pytest.raises(KeyboardInterrupt), display:
        raise KeyboardInterrupt
    assert stream.getvalue().rstrip().endswith("\x1b[?25h")


def test_no_accuracy_without_grades_and_no_eta_without_one() -> None:
    shown = " ".join(facts(replace(SNAPSHOT, graded=0, correct=0, eta_s=None)))
    assert "accuracy" not in shown and "ETA" not in shown and "GPU" not in shown


def test_gpu_hours_are_those_of_the_session_to_its_end() -> None:
    assert facts(replace(SNAPSHOT, gpu_hours=3.21))[-1] == "3.2 GPU hours in all"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (3600.0, "1:00:00")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
