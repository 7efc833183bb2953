"""Means over problems with their 95 % intervals: the bootstrap, resampling problems.

P problems, B resamples. Problems are resampled and not samples: the samples of a problem share its
difficulty, and intervals over them would be far too narrow. Everything is seeded: the same scores
give the same interval.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from engine.arrays import Floats

_NUM_RESAMPLES = 10_000  # of Hesterberg 2015: enough for routine use
# Of many thousand problems fewer do, as their percentiles are those of a normal distribution.
_MIN_RESAMPLES, _MAX_DRAWS = 1_000, 1 << 27
_BLOCK = 1 << 22
_NORMAL = NormalDist()


class Estimate(NamedTuple):
    """The interval is NaN where there is one problem only, which says nothing about others."""

    value: float
    low: float
    high: float


def estimate(scores: Sequence[Floats], confidence: float = 0.95, seed: int = 0) -> list[Estimate]:
    """The mean of each of `scores`, [P] with one score a problem, P of its own, and its interval.

    The expanded percentile interval of Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap": percentiles of the resampled means, further out than the confidence says, because a
    resample of few problems varies less than a new draw of problems does. It knows no more than its
    problems show: it has no width where all scores are equal, and covers less than it says where
    all but a handful of 30 problems are.
    """
    same_size: defaultdict[int, list[int]] = defaultdict(list)
    for place, of_problems in enumerate(scores):
        same_size[of_problems.size].append(place)
    estimates: dict[int, Estimate] = {}
    for num_problems, places in same_size.items():
        together = np.stack([scores[place] for place in places])
        if num_problems == 1:
            estimates |= {
                place: Estimate(float(of[0]), math.nan, math.nan)
                for place, of in zip(places, together, strict=True)
            }
            continue
        tail = expanded_tail(num_problems, confidence)
        bounds = np.quantile(_resampled_means(together, seed), [tail, 1 - tail], axis=1)
        rows = np.vstack([together.mean(axis=1), bounds]).T.tolist()
        estimates |= {place: Estimate(*row) for place, row in zip(places, rows, strict=True)}
    return [estimates[place] for place in range(len(scores))]


def expanded_tail(num_problems: int, confidence: float) -> float:
    """Probability beyond each end of the interval: Phi(-sqrt(P / (P - 1)) t), t Student's quantile
    at P - 1.
    """
    t = student_quantile((1 + confidence) / 2, num_problems - 1)
    return _NORMAL.cdf(-math.sqrt(num_problems / (num_problems - 1)) * t)


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t: Abramowitz and Stegun 1964, 26.7.5. Good to 0.1 % from 4 degrees of
    freedom on; for fewer it is some percent too small, where the tail of a bootstrap has no weight
    any more.
    """
    x = _NORMAL.inv_cdf(probability)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / degrees**power for power, term in enumerate(terms, 1))


def _resampled_means(scores: Floats, seed: int) -> Floats:
    """Means [M, B] of M `scores` [M, P] on the same resamples; in blocks, so that memory does not
    grow with P.
    """
    num_problems = scores.shape[1]
    assert num_problems > 0, "no problems"
    rng = np.random.default_rng(seed)
    num_resamples = min(_NUM_RESAMPLES, max(_MIN_RESAMPLES, _MAX_DRAWS // num_problems))
    rows = max(1, _BLOCK // num_problems)
    sizes = [min(rows, num_resamples - start) for start in range(0, num_resamples, rows)]
    sums = np.hstack([scores @ _times_drawn(rng, size, num_problems).T for size in sizes])
    return np.asarray(sums / num_problems)


def _times_drawn(rng: np.random.Generator, size: int, num_problems: int) -> Floats:
    """How often each problem is in each of `size` resamples [size, P]."""
    drawn = (
        rng.integers(0, num_problems, (size, num_problems))
        + num_problems * np.arange(size)[:, None]
    )
    times = np.bincount(drawn.ravel(), minlength=size * num_problems)
    return times.reshape(size, num_problems).astype(np.float64)
