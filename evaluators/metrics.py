"""Numbers from counts of correct answers. Pure functions on arrays; no files, no tables.

P problems. `num_correct` [P] of `num_samples` [P] responses to each problem are correct; every response is
in the denominator, whatever its verdict. Each problem weighs the same, whatever its number of samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
_BOOTSTRAP_BLOCK = 1 << 22


class Interval(NamedTuple):
    low: float
    high: float


def avg_at_n(num_samples: Counts, num_correct: Counts) -> float:
    """Share of correct responses to a problem, averaged over problems: avg@32 of the paper, for any n."""
    _check(num_samples, num_correct)
    return float(np.mean(num_correct / num_samples))


def pass_at_k(num_samples: Counts, num_correct: Counts, k: int) -> float | None:
    """Probability that one of k samples is correct, averaged over problems; None if a problem has fewer than k.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021, "Evaluating Large Language Models
    Trained on Code", section 2.1, as the product over j < k of (n - c - j) / (n - j).
    """
    _check(num_samples, num_correct)
    assert k >= 1, f"pass@{k} is nothing"
    if np.any(num_samples < k):
        return None
    drawn = np.arange(k)
    left, wrong_left = num_samples[:, None] - drawn, (num_samples - num_correct)[:, None] - drawn  # [P, k]
    all_wrong = np.prod(np.clip(wrong_left, 0, None) / left, axis=1)
    return float(np.mean(1.0 - all_wrong))


def bootstrap_interval(
    scores: NDArray[np.float64], seed: int = 0, num_resamples: int = 2_000, confidence: float = 0.95
) -> Interval:
    """Percentile interval of the mean of `scores` [P], one score a problem, when problems are drawn anew.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Problems are resampled and not
    samples: the samples of a problem share its difficulty, and intervals over them would be far too narrow.
    """
    assert scores.size > 0, "no problems"
    rng = np.random.default_rng(seed)
    rows = max(1, _BOOTSTRAP_BLOCK // scores.size)  # blocks, so that memory does not grow with P
    sizes = [min(rows, num_resamples - start) for start in range(0, num_resamples, rows)]
    means = np.concatenate([scores[rng.integers(0, scores.size, (size, scores.size))].mean(axis=1) for size in sizes])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def ratio(part: float, whole: float) -> float:
    """part / whole, and 0 of nothing is 0: the share of interventions in a response of no tokens."""
    return float(part) / float(whole) if whole else 0.0


def _check(num_samples: Counts, num_correct: Counts) -> None:
    assert num_samples.size > 0 and num_samples.shape == num_correct.shape, "one count of each a problem"
    assert np.all(num_samples >= 1) and np.all(num_correct <= num_samples), "more correct than there are"
