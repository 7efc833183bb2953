"""Floats of problems from counts of answers: avg@n, pass@k, maj@k. Pure functions on arrays; no
files, no tables.

P problems, J classes of equal wrong answers. A metric is the mean over problems of its scores [P],
so each problem weighs the same; every response is in a denominator, whatever its verdict. The score
is None when a problem has fewer than k samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.arrays import Bools, Floats, Ints

# Largest k < n of maj@k: its exact count takes about n k^3 steps a problem, and C(n, k) must be a
# finite float.
MAX_MAJORITY_K = 64


class Votes(NamedTuple):
    """How the samples of P problems vote: `correct` [P] for the gold answer, `wrong` [P, J] for
    each wrong one, largest class first and padded with zeros, `silent` [P] for nothing.
    """

    correct: Ints
    wrong: Ints
    silent: Ints

    @property
    def num_samples(self) -> Ints:
        return np.asarray(self.correct + self.wrong.sum(axis=1) + self.silent)


def avg_at_n(num_samples: Ints, num_correct: Ints) -> Floats:
    """Share of correct responses to each problem [P]: avg@32 of the AIME literature, for any n."""
    _check(num_samples, num_correct)
    return np.asarray(num_correct / num_samples)


def pass_at_k(num_samples: Ints, num_correct: Ints, k: int) -> Floats | None:
    """Probability [P] that one of k samples is correct.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021, "Evaluating Large Language
    Models Trained on Code", section 2.1, as the product over j < k of (n - c - j) / (n - j).
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
    """Probability [P] that the answer given most often by k samples is correct; None also for 64 <
    k < n.

    The majority vote of Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning in
    Language Models", section 2, in expectation over all C(n, k) subsets of a problem's samples,
    exactly. Of t answers tied at the top each wins with 1/t. Samples without an answer do not vote;
    where nobody votes the score is 0.
    """
    num_samples = votes.num_samples
    _check(num_samples, votes.correct)
    assert k >= 1, f"maj@{k} is nothing"
    if np.any(num_samples < k):
        return None
    if np.all(num_samples == k):
        return _plurality(votes)
    return _expected_plurality(votes, k) if k <= MAX_MAJORITY_K else None


class Paired(NamedTuple):
    """Two arms on what both have: `scores` [P'] of the problems in common, and the number of pairs
    of responses.
    """

    scores: Floats
    num_pairs: int


def paired_difference(there: Bools, correct: Bools) -> Paired:
    """Share of correct responses of arm 1 less that of arm 0; `there` and `correct` are [2, P, S].

    Only samples that both arms have count: the same sample of a problem has the same noise in both,
    and what both owe to it cancels out. Paired questions: Miller 2024, "Adding Error Bars to
    Evals".
    """
    both = there.all(axis=0)
    num_common = both.sum(axis=1)
    gained = (correct[1] & both).sum(axis=1) - (correct[0] & both).sum(axis=1)
    shared = num_common > 0
    return Paired(np.asarray(gained[shared] / num_common[shared]), int(num_common.sum()))


def ratio(part: float, whole: float) -> float:
    """part / whole, and 0 of nothing is 0: the share of interventions in a response of no
    tokens.
    """
    return float(part) / float(whole) if whole else 0.0


def _plurality(votes: Votes) -> Floats:
    """maj@k of all samples: 1 for the most votes, a share of it for a tie, 0 for fewer or none."""
    correct, wrong = votes.correct, votes.wrong
    on_top = (correct > 0) & (correct >= wrong.max(axis=1, initial=0))
    return np.where(on_top, 1.0 / (1 + (wrong == correct[:, None]).sum(axis=1)), 0.0)


def _expected_plurality(votes: Votes, k: int) -> Floats:
    """Sum over the correct answer's number of votes, `top`: ways to draw them, times ways to draw
    the others.
    """
    num_samples = votes.num_samples
    choose = _binomials(int(num_samples.max()), k)
    won = np.zeros(len(num_samples))
    for top in range(1, min(k, int(votes.correct.max())) + 1):
        won += choose[votes.correct, top] * _ways_not_to_lose(votes, top, k - top, choose)
    return np.asarray(won / choose[num_samples, k])


def _ways_not_to_lose(votes: Votes, top: int, size: int, choose: Floats) -> Floats:
    """Ways [P] to draw `size` of the other samples without more than `top` of a class; with s
    classes at `top` a way counts 1 / (s + 1).

    ways[p, s, d] counts the draws of d samples from the classes seen so far. A class of fewer than
    `top` cannot reach it and needs no look: such classes are drawn from as one, together with the
    silent samples.
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
    """C(m, i) at [m, i] for m <= n and i <= k; all terms are positive, so nothing cancels in sums
    of products.
    """
    drawn = np.arange(k)
    left = np.clip(np.arange(n + 1)[:, None] - drawn, 0, None)
    return np.hstack([np.ones((n + 1, 1)), np.cumprod(left / (drawn + 1), axis=1)])


def _check(num_samples: Ints, num_correct: Ints) -> None:
    assert num_samples.size > 0 and num_samples.shape == num_correct.shape, (
        "one count of each a problem"
    )
    assert np.all(num_samples >= 1) and np.all(num_correct <= num_samples), (
        "more correct than there are"
    )
