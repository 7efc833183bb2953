"""Scores of problems from counts of answers: avg@n, pass@k, maj@k.

Pure functions on arrays; no files, no tables. P problems, S samples, J classes of equal wrong
answers. A metric is the mean over problems of its scores [P], so each problem weighs the same.
Every response counts in a denominator, whatever its verdict. The scores are None where a problem
has fewer than k samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.arrays import Bools, Floats, Ints

# Largest k < n of maj@k: the exact count takes about n k^3 steps per problem, and C(n, k) must be
# a finite float.
MAX_MAJORITY_K = 64


class Votes(NamedTuple):
    """How many samples of each of P problems vote for which answer."""

    correct: Ints
    """[P] votes for the gold answer."""
    wrong: Ints
    """[P, J] votes for each class of equal wrong answers, largest first, padded with zeros."""
    silent: Ints
    """[P] samples without an answer."""

    @property
    def num_samples(self) -> Ints:
        """[P]."""
        return np.asarray(self.correct + self.wrong.sum(axis=1) + self.silent)


def avg_at_n(num_samples: Ints, num_correct: Ints) -> Floats:
    """Share of correct responses to each problem [P]: avg@32 of the AIME literature, for any n."""
    _check(num_samples, num_correct)
    return np.asarray(num_correct / num_samples)


def pass_at_k(num_samples: Ints, num_correct: Ints, k: int) -> Floats | None:
    """Probability that at least one of k samples is correct.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021, "Evaluating Large Language
    Models Trained on Code", section 2.1, as the product over j < k of (n - c - j) / (n - j).

    Args:
        num_samples: n of each problem [P].
        num_correct: c of each problem [P].
        k: Number of samples drawn, at least 1.

    Returns:
        Probabilities [P]; None where a problem has fewer than k samples.
    """
    _check(num_samples, num_correct)
    assert k >= 1, f"pass@{k} is nothing"
    if np.any(num_samples < k):
        return None
    drawn = np.arange(k)
    left, wrong_left = (
        num_samples[:, None] - drawn,
        (num_samples - num_correct)[:, None] - drawn,
    )  # [P, k]
    return np.asarray(1.0 - np.prod(np.clip(wrong_left, 0, None) / left, axis=1))


def maj_at_k(votes: Votes, k: int) -> Floats | None:
    """Probability that the most frequent answer among k samples is correct.

    The majority vote of Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning in
    Language Models", section 2, in exact expectation over all C(n, k) subsets of a problem's
    samples. Each of t answers that tie for first place wins with probability 1/t. Samples without
    an answer do not vote; where no sample votes the score is 0.

    Args:
        votes: The votes of all n samples of each problem.
        k: Number of samples that vote, at least 1.

    Returns:
        Probabilities [P]; None where a problem has fewer than k samples, or MAX_MAJORITY_K < k < n.
    """
    num_samples = votes.num_samples
    _check(num_samples, votes.correct)
    assert k >= 1, f"maj@{k} is nothing"
    if np.any(num_samples < k):
        return None
    if np.all(num_samples == k):
        return _plurality(votes)
    return _expected_plurality(votes, k) if k <= MAX_MAJORITY_K else None


class PairedScores(NamedTuple):
    """The difference between two arms on the samples that both have."""

    scores: Floats
    """Difference on each problem with a common sample, -1 to 1."""
    num_pairs: int
    """Number of pairs of responses."""


def paired_difference(answered: Bools, correct: Bools) -> PairedScores:
    """Share of correct responses of arm 1 minus that of arm 0, on their common samples.

    A sample of a problem has the same noise in both arms, so the variance that both owe to it
    cancels out. For paired questions see Miller 2024, "Adding Error Bars to Evals".

    Args:
        answered: Which samples have a response, [2, P, S].
        correct: Which responses are correct, [2, P, S].
    """
    both = answered.all(axis=0)
    num_common = both.sum(axis=1)
    gained = (correct[1] & both).sum(axis=1) - (correct[0] & both).sum(axis=1)
    shared = num_common > 0
    return PairedScores(np.asarray(gained[shared] / num_common[shared]), int(num_common.sum()))


def ratio(part: float, whole: float) -> float:
    """part / whole; 0 where `whole` is 0, as in a response without tokens."""
    return float(part) / float(whole) if whole else 0.0


def _plurality(votes: Votes) -> Floats:
    """maj@n of all n samples [P]: 1 if the correct answer leads alone, 1/t if t answers tie."""
    correct, wrong = votes.correct, votes.wrong
    on_top = (correct > 0) & (correct >= wrong.max(axis=1, initial=0))
    return np.where(on_top, 1.0 / (1 + (wrong == correct[:, None]).sum(axis=1)), 0.0)


def _expected_plurality(votes: Votes, k: int) -> Floats:
    """maj@k [P], summed over `top`, the number of votes for the correct answer.

    Each term is the number of ways to draw these votes times the number of ways to draw the others.
    """
    num_samples = votes.num_samples
    choose = _binomials(int(num_samples.max()), k)
    won = np.zeros(len(num_samples))
    for top in range(1, min(k, int(votes.correct.max())) + 1):
        won += choose[votes.correct, top] * _ways_not_to_lose(votes, top, k - top, choose)
    return np.asarray(won / choose[num_samples, k])


def _ways_not_to_lose(votes: Votes, top: int, size: int, choose: Floats) -> Floats:
    """Ways [P] to draw `size` of the other samples with at most `top` of each wrong class.

    A way with s classes at `top` counts 1 / (s + 1). ways[p, s, d] counts the draws of d samples
    from the classes seen so far, s of them at `top`. Classes of fewer than `top` samples cannot
    reach it, so they are drawn from as one class, together with the silent samples.
    """
    num_contenders = int((votes.wrong >= top).any(axis=0).sum())
    free = votes.silent + votes.wrong[:, num_contenders:].sum(axis=1)
    ways = np.zeros((len(free), 1 + size // top, size + 1))
    ways[:, 0] = choose[free, : size + 1]
    for contender in votes.wrong[:, :num_contenders].T:
        below = ways
        ways = choose[contender, 0, None, None] * below
        for drawn in range(1, min(top - 1, size, int(contender.max())) + 1):
            ways[:, :, drawn:] += choose[contender, drawn, None, None] * below[:, :, :-drawn]
        if top <= size:
            ways[:, 1:, top:] += choose[contender, top, None, None] * below[:, :-1, :-top]
    return np.asarray(ways[:, :, size] @ (1.0 / np.arange(1, ways.shape[1] + 1)))


def _binomials(n: int, k: int) -> Floats:
    """C(m, i) at [m, i] for m <= n and i <= k.

    All terms are positive, so sums of products lose no digits to cancellation.
    """
    drawn = np.arange(k)
    left = np.clip(np.arange(n + 1)[:, None] - drawn, 0, None)
    return np.hstack([np.ones((n + 1, 1)), np.cumprod(left / (drawn + 1), axis=1)])


def _check(num_samples: Ints, num_correct: Ints) -> None:
    assert num_samples.size > 0 and num_samples.shape == num_correct.shape, (
        "each problem needs one number of samples and one of correct samples"
    )
    assert np.all(num_samples >= 1) and np.all(num_correct <= num_samples), (
        "a problem has more correct samples than samples"
    )
