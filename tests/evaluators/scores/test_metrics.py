"""Metrics against slow and obvious references."""

from collections import Counter
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.arrays import Floats as Scores
from evaluators.scores.metrics import Votes, avg_at_n, maj_at_k, paired_difference, pass_at_k, ratio

OUTCOMES = st.lists(
    st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=6
)  # [problem][sample]
# The answer of each sample; GOLD is correct, None is no answer.
GOLD = "gold"
ANSWERS = st.lists(
    st.lists(st.sampled_from([GOLD, GOLD, "a", "b", "c", None]), min_size=1, max_size=8), min_size=1
)


def counts(outcomes: list[list[bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([len(row) for row in outcomes]), np.array([sum(row) for row in outcomes])


def votes_of(problems: list[list[str | None]]) -> Votes:
    """The votes of written-out answers; the classes are padded with more zeros than needed."""
    wrong = np.zeros((len(problems), 9), dtype=np.int64)
    for place, answers in enumerate(problems):
        sizes = sorted(
            Counter(answer for answer in answers if answer not in (GOLD, None)).values(),
            reverse=True,
        )
        wrong[place, : len(sizes)] = sizes
    correct, silent = (
        np.array([answers.count(what) for answers in problems]) for what in (GOLD, None)
    )
    return Votes(correct, wrong, silent)


def won(answers: tuple[str | None, ...]) -> Fraction:
    """What a vote of these samples is worth: a share of 1 for the gold answer among those given
    most often.
    """
    given_ = Counter(answer for answer in answers if answer is not None)
    top = [answer for answer, count in given_.items() if count == max(given_.values())]
    return Fraction(GOLD in top, max(1, len(top)))


def mean(scores: Scores | None) -> float:
    assert scores is not None
    return float(scores.mean())


@settings(deadline=None)
@given(OUTCOMES)
def test_avg_at_n_is_the_share_of_correct_samples_of_each_problem(
    outcomes: list[list[bool]],
) -> None:
    assert avg_at_n(*counts(outcomes)) == pytest.approx([sum(row) / len(row) for row in outcomes])


@settings(deadline=None)
@given(OUTCOMES, st.integers(1, 8))
def test_pass_at_k_is_the_share_of_k_subsets_with_a_correct_sample(
    outcomes: list[list[bool]], k: int
) -> None:
    subsets = [list(combinations(row, k)) for row in outcomes]
    if all(subsets):
        expected = [sum(map(any, drawn)) / len(drawn) for drawn in subsets]
        assert pass_at_k(*counts(outcomes), k) == pytest.approx(expected)
    else:
        assert pass_at_k(*counts(outcomes), k) is None


def test_pass_at_1_is_avg_at_n_and_pass_at_n_says_whether_any_sample_is_correct() -> None:
    num_samples, num_correct = np.array([32, 32, 32]), np.array([0, 1, 32])
    assert pass_at_k(num_samples, num_correct, 1) == pytest.approx(
        avg_at_n(num_samples, num_correct)
    )
    assert pass_at_k(num_samples, num_correct, 32) == pytest.approx([0, 1, 1])
    assert pass_at_k(num_samples, num_correct, 33) is None


def test_pass_at_k_stays_exact_for_many_samples() -> None:
    assert mean(pass_at_k(np.array([100_000]), np.array([1]), 1_000)) == pytest.approx(0.01)


@settings(deadline=None, max_examples=300)
@given(ANSWERS, st.integers(1, 9))
def test_maj_at_k_is_the_mean_vote_of_all_k_subsets(
    problems: list[list[str | None]], k: int
) -> None:
    subsets = [list(combinations(answers, k)) for answers in problems]
    if all(subsets):
        expected = [float(sum(map(won, drawn)) / len(drawn)) for drawn in subsets]
        assert maj_at_k(votes_of(problems), k) == pytest.approx(expected, rel=1e-12)
    else:
        assert maj_at_k(votes_of(problems), k) is None


@settings(deadline=None)
@given(ANSWERS)
def test_maj_at_1_is_avg_at_n(problems: list[list[str | None]]) -> None:
    votes = votes_of(problems)
    assert maj_at_k(votes, 1) == pytest.approx(avg_at_n(votes.num_samples, votes.correct))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([GOLD, GOLD, "a"], 1.0),
        ([GOLD, "a", "a"], 0.0),
        ([GOLD, "a"], 0.5),
        ([GOLD, GOLD, "a", "a", "b", "b", "c"], 1 / 3),
        ([GOLD, None, None, None], 1.0),
        ([None, None], 0.0),
        (["a", "b", None], 0.0),
    ],
)
def test_a_majority_of_all_samples_shares_ties_and_does_not_count_the_silent(
    answers: list[str | None], expected: float
) -> None:
    assert mean(maj_at_k(votes_of([answers]), len(answers))) == pytest.approx(expected)


def test_maj_at_k_stays_exact_for_hundreds_of_samples() -> None:
    correct, wrong, silent, k = 120, 100, 80, 64
    ways = sum(
        comb(correct, c) * comb(wrong, w) * comb(silent, k - c - w) * Fraction(2 if c > w else 1, 2)
        for c in range(1, k + 1)
        for w in range(min(c, k - c) + 1)
    )
    votes = Votes(np.array([correct]), np.array([[wrong]]), np.array([silent]))
    assert mean(maj_at_k(votes, k)) == pytest.approx(float(ways / comb(300, k)), rel=1e-12)


def test_maj_at_k_is_a_probability_where_every_answer_is_another() -> None:
    votes = Votes(np.array([1, 256]), np.array([[1] * 255, [0] * 255]), np.array([0, 0]))
    assert maj_at_k(votes, 64) == pytest.approx([1 / 256, 1])
    assert maj_at_k(votes, 256) == pytest.approx([1 / 256, 1])


def test_maj_at_k_is_not_counted_for_a_large_k_below_n() -> None:
    votes = Votes(np.array([100]), np.array([[28]]), np.array([0]))
    assert maj_at_k(votes, 65) is None
    assert maj_at_k(votes, 128) == pytest.approx([1.0])


def test_a_paired_difference_counts_only_what_both_arms_have() -> None:
    answered = np.array([[[1, 1], [1, 0], [1, 1]], [[1, 1], [1, 1], [0, 0]]], dtype=np.bool_)
    correct = np.array([[[0, 0], [1, 0], [1, 1]], [[1, 0], [0, 1], [0, 0]]], dtype=np.bool_)
    paired = paired_difference(answered, correct)
    assert paired.scores.tolist() == [0.5, -1.0]
    assert paired.num_pairs == 3


def test_a_share_of_nothing_is_zero() -> None:
    assert ratio(0, 0) == 0.0
    assert ratio(1, 4) == 0.25
