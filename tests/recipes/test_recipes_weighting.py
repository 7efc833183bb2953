"""The numbers of the experiment with divergence-weighted advantages: over seeds, and inside a
seed.
"""

import numpy as np
import pytest

from recipes.weighting import ALPHA, ARMS, EVERY, Row, interval, lines


def test_the_interval_is_students_over_seeds() -> None:
    mean, low, high = interval(np.array([0.5, 0.6, 0.7, 0.8, 0.9]))
    half = (
        2.776445 * np.sqrt(0.025) / np.sqrt(5)
    )  # t at .975 and 4 degrees of freedom, times the standard error
    assert mean == pytest.approx(0.7)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), rel=1e-3)


def test_a_difference_is_one_of_pairs_of_a_seed() -> None:
    """The arms' accuracies vary from seed to seed; that one is always .1 above another has no
    spread.
    """
    above = {"dapo": 0.0, "low-KL": 0.1, "high-KL": -0.1}
    rows: list[Row] = [
        {"arm": arm, "seed": seed, "step": EVERY, "sampled": 0.3 + seed / 10 + more, "greedy": 0.5}
        for arm, more in above.items()
        for seed in range(5)
    ]
    table = [line.split() for line in lines(rows)]
    assert table[1][:5] == ["sampled", "dapo", "0.500", "(0.304", "0.696)"]
    assert table[4][:6] == ["low-KL", "-", "dapo", "0.100", "(0.100", "0.100)"]


def test_the_arms_differ_in_nothing_but_alpha() -> None:
    assert {arm: config.alpha for arm, config in ARMS.items()} == {
        "dapo": 0,
        "low-KL": -ALPHA,
        "high-KL": ALPHA,
    }
    assert (
        len(
            {
                (config.num_steps, config.num_minibatches, config.strength)
                for config in ARMS.values()
            }
        )
        == 1
    )
