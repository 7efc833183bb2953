"""Intervals against a plain loop, published tables, and runs whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.arrays import Floats as Scores
from evaluators.scores.bootstrap import Estimate, estimate, expanded_tail, student_quantile
from evaluators.scores.metrics import paired_difference

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=40).map(np.array)
NUM_RUNS = 1_000
TRUTH = 0.25  # the mean of DIFFICULTY: most problems are hardly ever solved, a few always
DIFFICULTY = (0.5, 1.5)


def interval(scores: Scores, confidence: float = 0.95, seed: int = 0) -> Estimate:
    [found] = estimate([scores], confidence, seed)
    return found


def coverage(estimates: list[Estimate], truth: float) -> float:
    return sum(found.low <= truth <= found.high for found in estimates) / len(estimates)


@pytest.mark.parametrize("num_problems", [30, 200])
@pytest.mark.parametrize("num_samples", [4, 8, 32])
def test_a_95_percent_interval_covers_the_truth_in_95_percent_of_runs(
    num_problems: int, num_samples: int
) -> None:
    rng = np.random.default_rng(num_samples)
    solved = rng.beta(*DIFFICULTY, (NUM_RUNS, num_problems))
    runs = rng.binomial(num_samples, solved) / num_samples
    assert 0.93 <= coverage(estimate(list(runs)), TRUTH) <= 0.97


@pytest.mark.parametrize("num_problems", [30, 200])
def test_a_95_percent_interval_of_a_difference_covers_the_truth_in_95_percent_of_runs(
    num_problems: int,
) -> None:
    rng = np.random.default_rng(0)
    solved = rng.beta(*DIFFICULTY, (NUM_RUNS, num_problems, 1))
    noise = rng.random((NUM_RUNS, num_problems, 8))  # one for both arms
    correct = np.stack([noise < solved, noise < 1 - 0.8 * (1 - solved)], axis=1)
    runs = [paired_difference(np.ones_like(run), run).scores for run in correct]
    assert 0.93 <= coverage(estimate(runs), 0.2 * (1 - TRUTH)) <= 0.97


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(3)
    noise, solved = rng.random((30, 8)), rng.beta(*DIFFICULTY, (30, 1))
    correct = np.stack([noise < solved, noise < 1 - 0.8 * (1 - solved)])
    paired = interval(paired_difference(np.ones_like(correct), correct).scores)
    low, high = estimate([arm.mean(axis=1) for arm in correct])
    unpaired_width = np.hypot(low.high - low.low, high.high - high.low)  # as of independent arms
    assert paired.value == pytest.approx(high.value - low.value)
    assert paired.high - paired.low < 0.5 * unpaired_width


@settings(max_examples=40, deadline=None)
@given(SCORES, st.integers(0, 2**32))
def test_an_interval_is_repeatable_and_lies_within_the_scores(
    scores: np.ndarray, seed: int
) -> None:
    found = interval(scores, seed=seed)
    assert found == interval(scores, seed=seed)
    assert scores.min() - 1e-12 <= found.low <= found.high <= scores.max() + 1e-12
    assert found.value == pytest.approx(scores.mean())


@settings(max_examples=20, deadline=None)
@given(SCORES)
def test_a_wider_confidence_gives_a_wider_interval(scores: np.ndarray) -> None:
    narrow, wide = interval(scores, 0.8), interval(scores, 0.99)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_an_interval_equals_a_plain_loop_over_resamples() -> None:
    scores = np.random.default_rng(1).random(30)
    rng = np.random.default_rng(0)
    means = [np.mean([scores[i] for i in rng.integers(0, 30, 30)]) for _ in range(10_000)]
    tail = 0.01878  # Phi(-sqrt(30 / 29) * 2.0452)
    assert interval(scores)[1:] == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=1e-4)


def test_an_interval_of_many_problems_has_the_width_of_the_standard_error() -> None:
    scores = np.repeat([0.0, 1.0], 100)
    found = interval(scores)
    standard_error = 0.5 / np.sqrt(200)
    assert (found.high - found.low) / 2 == pytest.approx(1.977 * standard_error, rel=0.05)
    assert (found.high + found.low) / 2 == pytest.approx(0.5, abs=0.01)


def test_many_problems_are_resampled_in_blocks_that_cover_all_resamples() -> None:
    scores = np.random.default_rng(2).random(3_000)
    half = 1.96 * scores.std() / np.sqrt(scores.size)
    assert interval(scores) == pytest.approx(
        (scores.mean(), scores.mean() - half, scores.mean() + half), abs=half / 8
    )


def test_estimates_do_not_depend_on_what_is_estimated_beside_them() -> None:
    rng = np.random.default_rng(4)
    scores = [rng.random(size) for size in (5, 30, 5, 1)]
    assert np.array(estimate(scores)) == pytest.approx(
        np.array([interval(one) for one in scores]), nan_ok=True
    )
    assert estimate([]) == []


def test_one_problem_has_no_interval() -> None:
    assert interval(np.array([0.25])) == pytest.approx((0.25, np.nan, np.nan), nan_ok=True)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(4, 2.7764), (9, 2.2622), (29, 2.0452), (197, 1.9721)]
)
def test_students_quantile_is_that_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(quantile, rel=1e-3)


def test_the_fewer_problems_the_further_out_is_the_percentile() -> None:
    tails = [expanded_tail(num_problems, 0.95) for num_problems in (2, 3, 5, 30, 1_000_000)]
    assert tails == sorted(tails)
    assert tails[0] < 1e-9 and tails[-1] == pytest.approx(0.025, rel=1e-4)
