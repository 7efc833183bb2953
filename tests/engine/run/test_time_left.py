"""What is left of a run: from the roofline first, then from what the run shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.roofline import Device, EngineLoad, PairRoofline
from engine.run.progress import Progress
from engine.run.time_left import Seen, TimeLeft

LOAD = EngineLoad(1e9, 1e4, 1e9)
ROOFLINE = PairRoofline({"base": LOAD, "rl": LOAD}, Device("d", 1e12, 1e14, 1e-3, 1e-5), False)
LIMIT = 8000
TIME_LEFT = TimeLeft(ROOFLINE, 1, 64, 100.0, LIMIT, is_limit=True)
NUM = 960


def seen_after(steps: int, lengths: list[int], slots: int, step_s: float) -> tuple[Seen, int]:
    """What a run has done after so many steps of `slots` slots, and how many are left."""
    free_at = np.zeros(slots, np.int64)
    num_made = num_tokens = 0
    for length in lengths:
        slot = int(free_at.argmin())
        start, free_at[slot] = free_at[slot], free_at[slot] + length
        num_made += bool(free_at[slot] <= steps)
        num_tokens += int(np.clip(steps - start, 0, length))
    return Seen(num_tokens, num_made, steps * step_s, num_tokens), len(lengths) - num_made


def lengths_of(seed: int) -> list[int]:
    drawn = np.random.default_rng(seed).lognormal(np.log(2000), 0.5, NUM)
    return [int(length) for length in np.clip(drawn, 10, LIMIT)]


def test_before_the_first_token_the_roofline_and_the_limit_say_what_is_left() -> None:
    left = TIME_LEFT.remaining_seconds(Seen(0, 0, 0.0, 0), NUM)
    step = ROOFLINE.step_seconds(64, 100 + LIMIT / 2)
    assert left == pytest.approx(NUM * LIMIT / 64 * step)


def test_a_device_that_is_twice_as_slow_takes_twice_as_long_as_soon_as_tokens_are_seen() -> None:
    for slowness in (1.0, 2.0):
        step = slowness * ROOFLINE.step_seconds(64, 100 + 50)
        left = TIME_LEFT.remaining_seconds(Seen(6400, 0, 100 * step, 0), NUM)
        expected = (NUM * LIMIT - 6400) / 64 * slowness * ROOFLINE.step_seconds(64, 100 + LIMIT / 2)
        assert left == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_length_is_known_within_15_percent_when_a_tenth_is_made(seed: int) -> None:
    lengths = lengths_of(seed)
    steps = 1
    while (found := seen_after(steps, lengths, 64, 1.0))[0].num_made < NUM / 10:
        steps += 50
    assert TIME_LEFT.mean_length(*found) == pytest.approx(np.mean(lengths), rel=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_comes_true_without_a_roofline_too(seed: int) -> None:
    lengths = lengths_of(seed)
    end = 1
    while seen_after(end, lengths, 64, 1.0)[1]:
        end += 50
    half = seen_after(end // 2, lengths, 64, 1.0)
    left = replace(TIME_LEFT, roofline=None).remaining_seconds(*half)
    assert left == pytest.approx(end / 2, rel=0.35)  # the last ones may be long


def test_what_engines_have_not_told_yet_does_not_look_like_longer_responses() -> None:
    told = Seen(400_000, 200, 60.0, 400_000)
    later = told._replace(num_tokens=450_000)
    assert TIME_LEFT.mean_length(later, 760) == TIME_LEFT.mean_length(told, 760)


def test_a_length_that_is_known_is_not_estimated() -> None:
    known = replace(TIME_LEFT, length=100.0, is_limit=False)
    assert known.mean_length(Seen(10_000, 3, 1.0, 10_000), 50) == 100


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**5),
    st.floats(0, 10**6),
    st.integers(0, 10**5),
    st.booleans(),
    st.booleans(),
)
def test_what_is_left_is_never_negative_and_nothing_only_at_the_end(
    tokens: int, made: int, working: float, left: int, is_known: bool, is_limit: bool
) -> None:
    time_left = replace(TIME_LEFT, roofline=ROOFLINE if is_known else None, is_limit=is_limit)
    seconds = time_left.remaining_seconds(Seen(tokens, made, working, tokens), left)
    if left == 0:
        assert seconds == 0
    elif seconds is None:
        assert not is_known and not (tokens and working)
    else:
        assert seconds > 0 or working < 1e-6


def test_gpu_hours_count_the_start_and_what_is_left() -> None:
    times = iter((0.0, 600.0, 600.0))
    progress = Progress(NUM, TIME_LEFT, num_gpus=8, clock=lambda: next(times))
    progress.engines_ready()
    snapshot = progress.snapshot(0, 0, 0)
    assert snapshot.eta_s == TIME_LEFT.remaining_seconds(Seen(0, 0, 0.0, 0), NUM)
    assert snapshot.gpu_hours == pytest.approx(8 * (600 + (snapshot.eta_s or 0)) / 3600)
    alone = Progress(NUM, TIME_LEFT, clock=lambda: 0.0).snapshot(0, 0, 0)
    assert alone.gpu_hours is None
