"""An idle engine helps where that pays, judged by what was seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.lockstep.forecast import Forecast

counts, seconds = st.integers(1, 10**6), st.floats(0.01, 1e4)


def test_nothing_is_said_before_a_speed_is_known() -> None:
    assert Forecast(switch_seconds=1.0).pays(1000, 10**6) is None


def test_half_of_the_room_is_expected_until_lengths_are_known() -> None:
    forecast = Forecast(1.0)
    assert forecast.tail_tokens(10, 1000) == 500
    forecast.note_lengths(100, 3000)
    assert forecast.tail_tokens(10, 1000) == 300
    assert forecast.tail_tokens(10, 200) == 200


def test_pays_where_what_is_left_takes_several_times_the_switch() -> None:
    forecast = Forecast(switch_seconds=10.0)
    forecast.note_tokens(1000, 1.0)
    assert forecast.pays(100, 2 * 39_000) is False
    assert forecast.pays(100, 2 * 41_000) is True


def test_the_first_guess_of_a_switch_grows_with_the_weights() -> None:
    assert Forecast.before_any(15 * 10**9).switch_seconds == 15.0


@given(counts, counts, counts, seconds, seconds)
def test_more_work_or_a_faster_switch_never_speaks_against_help(
    tails: int, room: int, tokens: int, took: float, switch: float
) -> None:
    def pays(tails: int, room: int, switch: float) -> bool:
        forecast = Forecast(switch)
        forecast.note_tokens(tokens, took)
        forecast.note_lengths(20, 20 * 50)
        return bool(forecast.pays(tails, room))

    assert pays(tails, room, switch) <= pays(2 * tails, 2 * room, switch)
    assert pays(tails, room, switch) <= pays(tails, room, switch / 2)
