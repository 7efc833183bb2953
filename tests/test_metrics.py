"""Metrics against slow and obvious references."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.metrics import avg_at_n, bootstrap_interval, pass_at_k, ratio

OUTCOMES = st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=6)  # [problem][sample]
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


def counts(outcomes: list[list[bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([len(row) for row in outcomes]), np.array([sum(row) for row in outcomes])


@settings(deadline=None)
@given(OUTCOMES)
def test_avg_at_n_is_the_mean_over_problems_of_the_share_of_correct_samples(outcomes: list[list[bool]]) -> None:
    expected = sum(sum(row) / len(row) for row in outcomes) / len(outcomes)
    assert avg_at_n(*counts(outcomes)) == pytest.approx(expected)


@settings(deadline=None)
@given(OUTCOMES, st.integers(1, 8))
def test_pass_at_k_is_the_share_of_k_subsets_with_a_correct_sample(outcomes: list[list[bool]], k: int) -> None:
    subsets = [list(combinations(row, k)) for row in outcomes]
    if all(subsets):
        expected = sum(sum(map(any, drawn)) / len(drawn) for drawn in subsets) / len(subsets)
        assert pass_at_k(*counts(outcomes), k) == pytest.approx(expected)
    else:
        assert pass_at_k(*counts(outcomes), k) is None


def test_pass_at_1_is_avg_at_n_and_pass_at_n_says_whether_any_sample_is_correct() -> None:
    num_samples, num_correct = np.array([32, 32, 32]), np.array([0, 1, 32])
    assert pass_at_k(num_samples, num_correct, 1) == pytest.approx(avg_at_n(num_samples, num_correct))
    assert pass_at_k(num_samples, num_correct, 32) == pytest.approx(2 / 3)
    assert pass_at_k(num_samples, num_correct, 33) is None


def test_pass_at_k_stays_exact_for_many_samples() -> None:
    value = pass_at_k(np.array([100_000]), np.array([1]), 1_000)
    assert value == pytest.approx(0.01)


@settings(max_examples=40, deadline=None)
@given(SCORES, st.integers(0, 2**32))
def test_a_bootstrap_interval_is_repeatable_and_lies_within_the_scores(scores: np.ndarray, seed: int) -> None:
    interval = bootstrap_interval(scores, seed)
    assert interval == bootstrap_interval(scores, seed)
    assert scores.min() - 1e-12 <= interval.low <= interval.high <= scores.max() + 1e-12


@settings(max_examples=20, deadline=None)
@given(SCORES)
def test_a_wider_confidence_gives_a_wider_bootstrap_interval(scores: np.ndarray) -> None:
    narrow, wide = bootstrap_interval(scores, confidence=0.8), bootstrap_interval(scores, confidence=0.99)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_a_bootstrap_interval_equals_a_plain_loop_over_resamples() -> None:
    scores = np.random.default_rng(1).random(30)
    rng = np.random.default_rng(0)
    means = [np.mean([scores[i] for i in rng.integers(0, 30, 30)]) for _ in range(2_000)]
    interval = bootstrap_interval(scores)
    assert interval.low == pytest.approx(np.quantile(means, 0.025), abs=1e-9)
    assert interval.high == pytest.approx(np.quantile(means, 0.975), abs=1e-9)


def test_a_bootstrap_interval_has_the_width_of_the_standard_error_over_problems() -> None:
    scores = np.repeat([0.0, 1.0], 100)
    interval = bootstrap_interval(scores)
    standard_error = 0.5 / np.sqrt(200)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * standard_error, rel=0.08)
    assert (interval.high + interval.low) / 2 == pytest.approx(0.5, abs=0.01)


def test_a_bootstrap_over_many_problems_is_done_in_blocks_that_cover_all_resamples() -> None:
    scores = np.random.default_rng(2).random(5_000)
    interval = bootstrap_interval(scores)
    half = 1.96 * scores.std() / np.sqrt(scores.size)
    assert interval == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.15 * half)


def test_one_problem_has_an_interval_of_no_width() -> None:
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)


def test_a_share_of_nothing_is_zero() -> None:
    assert ratio(0, 0) == 0.0
    assert ratio(1, 4) == 0.25
