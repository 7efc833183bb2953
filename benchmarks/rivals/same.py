"""Do two contenders sample from the same distribution? A permutation test within problems; without
that no comparison.

The statistic is the sum over (problem, position, token) of the squared difference between the two
sides' frequencies; a response that has ended has one more "token" at every later position.
Responses of a problem are exchangeable between the sides if their distribution is the same,
whatever it is, so the test is exact; and a difference at any position of any problem adds up.

Dimensions: S samples of a problem, ours and then theirs; T positions; N permutations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.arrays import Floats

Responses = Sequence[Sequence[int]]
NUM_PERMUTATIONS = 9_999  # p is at least 1 / (N + 1)
_ENDED = -1
_ROUNDING = 1e-9


def same_distribution(
    ours: Sequence[Responses], theirs: Sequence[Responses], seed: int = 0
) -> float:
    """p value of the hypothesis that they are. Both: problem -> samples -> token ids, the same
    problems in order.
    """
    noise = np.random.default_rng(seed)
    distance = np.zeros(NUM_PERMUTATIONS + 1)
    for our, their in zip(ours, theirs, strict=True):
        distance += _distances([*our, *their], len(our), noise)
    beyond = distance[1:] >= distance[0] - _ROUNDING
    return float((1 + beyond.sum()) / (1 + NUM_PERMUTATIONS))


def _distances(samples: Responses, num_ours: int, noise: np.random.Generator) -> Floats:
    """The statistic of one problem, [1 + N]: as it is, then with the samples dealt to the sides at
    random.
    """
    weight = np.full((NUM_PERMUTATIONS + 1, len(samples)), -1 / (len(samples) - num_ours))
    weight[:, :num_ours] = 1 / num_ours
    weight[1:] = noise.permuted(weight[1:], axis=1)
    # The square of a sum over samples, token by token: a product over pairs of samples that agree
    # at a position.
    return np.asarray(((weight @ _agreement(samples)) * weight).sum(1))


def _agreement(samples: Responses) -> Floats:
    """At how many positions each two responses hold the same token, [S, S]."""
    tokens = np.full((len(samples), max(map(len, samples))), _ENDED)
    for row, response in zip(tokens, samples, strict=True):
        row[: len(response)] = response
    return np.asarray((tokens[:, None] == tokens[None]).sum(2), np.float64)
