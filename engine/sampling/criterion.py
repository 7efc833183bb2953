"""Criteria: where the switching rule would intervene, each a pure function of both policies.

Most criteria need the nuclei alone. Some need numbers of the full distributions, which each side
has of its own model only: `query` says which, and `sampler` exchanges them. The criterion js is
that of "Sparse but Critical" (arXiv 2603.22446, section 3); dlogp, entropy, KL and random positions
are those of "On the Direction of RLVR Updates" (arXiv 2603.22117).

Dimensions: B rows, Q numbers that a criterion asks of each policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.arrays import Bools, Floats, Ints
from engine.sampling.coupling import CoupledDraws
from engine.sampling.noise import POSITIONS, uniform
from engine.sampling.rule import CriterionName

# Log-probability of a token that a model masks, so that p log p is a number.
_MIN_LOG_P = -700.0
# Least mass outside the cells: a smaller one is rounding of the float32 probabilities inside.
_MIN_REST = 1e-6


@dataclass(frozen=True, slots=True)
class Query:
    """The log-probabilities that a criterion asks of each policy's full distribution."""

    row: Ints
    """Row of each one [Q]."""
    token: Ints
    """Token id of each one [Q]."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Both policies' numbers: the log-probabilities of a `Query`, or one entropy per row, in nats.

    Every array is [Q]; for entropies, Q = B.
    """

    row: Ints
    base: Floats
    rl: Floats


Fires = Callable[[CoupledDraws, Answers | None, float], Bools]
"""A criterion: from draws of B rows, answers and the threshold to where it fires [B]."""

ASKS_ENTROPY: tuple[CriterionName, ...] = ("entropy-base", "entropy-rl")
"""The criteria whose answers are entropies."""


def query(criterion: CriterionName, draws: CoupledDraws) -> Query | None:
    """The log-probabilities that a criterion needs of both policies; None if it needs none."""
    if criterion == "dlogp":
        return Query(np.arange(len(draws.primary)), draws.primary)
    if criterion in ("kl", "reverse-kl"):
        num_rows = len(draws.primary)
        cell = np.unique((draws.nuclei.row % num_rows << 32) + draws.nuclei.token)
        return Query(cell >> 32, cell & 0xFFFFFFFF)
    return None


def fires(
    criterion: CriterionName, threshold: float, draws: CoupledDraws, answers: Answers | None
) -> Bools:
    """Where a criterion fires, budget and window aside. Comparisons are strict.

    Args:
        criterion: Name of the criterion.
        threshold: Its threshold; criteria without one ignore it.
        draws: Both policies at B rows.
        answers: The policies' answers to the criterion's query; None if it has none.

    Returns:
        Flags [B].
    """
    return _FIRES[criterion](draws, answers, threshold)


def draw_positions(key: int, count: int, start: int, stop: int) -> Ints:
    """Draw distinct positions of a response at random, every set of them equally likely.

    A smaller `stop` keeps those of its positions that a larger one draws.

    Args:
        key: Noise key of the sample.
        count: How many positions to draw. The window may hold fewer: all of them are drawn then.
        start: First position of the window.
        stop: First position after the window.

    Returns:
        The positions, ascending.
    """
    position = np.arange(start, max(start, stop))
    ticket = uniform(
        np.full(len(position), key, np.uint64) ^ POSITIONS, position, np.zeros_like(position)
    )
    return np.sort(position[np.argsort(ticket, kind="stable")[:count]])


def coarse_kl(row: Ints, log_p: Floats, log_q: Floats) -> Floats:
    """KL(p || q) over some cells of each row and one more cell for all the rest.

    Merging outcomes never raises a divergence (data-processing inequality), so the result is at
    most the KL of the full distributions; and it is finite.

    Args:
        row: Row of each cell [Q].
        log_p: Log-probability of each cell under p [Q].
        log_q: Log-probability of each cell under q [Q].

    Returns:
        Divergences [B] in nats.
    """
    log_p, log_q = np.maximum(log_p, _MIN_LOG_P), np.maximum(log_q, _MIN_LOG_P)
    p, q = np.exp(log_p), np.exp(log_q)
    inside = np.bincount(row, p * (log_p - log_q))
    rest_p, rest_q = (np.clip(1 - np.bincount(row, mass), _MIN_REST, None) for mass in (p, q))
    return np.asarray(inside + rest_p * np.log(rest_p / rest_q))


def _js(draws: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return draws.js > threshold


def _kl(draws: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    """KL(base || rl), called forward KL where base is the target."""
    assert answers
    return coarse_kl(answers.row, answers.base, answers.rl) > threshold


def _reverse_kl(draws: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    """KL(rl || base), the penalty of RL fine-tuning."""
    assert answers
    return coarse_kl(answers.row, answers.rl, answers.base) > threshold


def _entropy_base(draws: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    assert answers
    return answers.base > threshold


def _entropy_rl(draws: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    assert answers
    return answers.rl > threshold


def _dlogp(draws: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    """log p_int(y) - log p_prim(y) of the primary's token y: low where p_int finds y unlikely."""
    assert answers
    rl_minus_base = answers.rl - answers.base
    return np.where(draws.forward, rl_minus_base, -rl_minus_base) < threshold


def _argmax(draws: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    base, rl = draws.nuclei.top1.reshape(2, -1)
    return np.asarray(base != rl)


def _random(draws: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return np.asarray(
        uniform(draws.key ^ POSITIONS, draws.position, np.zeros_like(draws.position)) < threshold
    )


def _always(draws: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return np.ones(len(draws.forward), np.bool_)


def _never(draws: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return np.zeros(len(draws.forward), np.bool_)


_FIRES: dict[CriterionName, Fires] = {
    "js": _js,
    "kl": _kl,
    "reverse-kl": _reverse_kl,
    "entropy-base": _entropy_base,
    "entropy-rl": _entropy_rl,
    "dlogp": _dlogp,
    "argmax": _argmax,
    "random": _random,
    "always": _always,
    "never": _never,
}
