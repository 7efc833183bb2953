"""The criteria: where the switching rule would intervene, each a pure function of what both
policies say.

Most need the nuclei alone. Some need numbers of the full distributions, which each side has of its
own model only: `query` says which, `sampler` exchanges them. js is the rule of "Sparse but
Critical" (arXiv 2603.22446, section 3); dlogp, entropy, KL and random positions are those of "On
the Direction of RLVR Updates" (arXiv 2603.22117).

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

_MIN_LOG_P = -700.0  # of a token that a model masks, so that p log p is a number
# Least mass outside the cells: what is below is rounding of the float32 probabilities inside.
_MIN_REST = 1e-6


@dataclass(frozen=True, slots=True)
class Query:
    """What a criterion asks of each policy's full distribution: log-probabilities of token [Q] in
    row [Q].
    """

    row: Ints
    token: Ints


@dataclass(frozen=True, slots=True)
class Answers:
    """Both policies' numbers, each [Q], of row [Q]: what `query` asked for, or their entropies."""

    row: Ints
    base: Floats
    rl: Floats


Fires = Callable[[CoupledDraws, Answers | None, float], Bools]

ASKS_ENTROPY: tuple[CriterionName, ...] = ("entropy-base", "entropy-rl")


def query(criterion: CriterionName, both: CoupledDraws) -> Query | None:
    """The log-probabilities that the criterion needs of both policies, None if none."""
    if criterion == "dlogp":
        return Query(np.arange(len(both.primary)), both.primary)
    if criterion in ("kl", "reverse-kl"):
        num_rows = len(both.primary)
        cell = np.unique((both.nuclei.row % num_rows << 32) + both.nuclei.token)
        return Query(cell >> 32, cell & 0xFFFFFFFF)
    return None


def fires(
    criterion: CriterionName, threshold: float, both: CoupledDraws, answers: Answers | None
) -> Bools:
    """Where the rule would intervene, [B], were there budget. Comparisons are strict."""
    return _FIRES[criterion](both, answers, threshold)


def random_positions(key: int, count: int, start: int, stop: int) -> Ints:
    """`count` of the positions start ... stop - 1, ascending, all sets equally likely; all of them
    if they are fewer.

    A smaller `stop` keeps those of its positions that were chosen with a larger one.
    """
    position = np.arange(start, max(start, stop))
    ticket = uniform(
        np.full(len(position), key, np.uint64) ^ POSITIONS, position, np.zeros_like(position)
    )
    return np.sort(position[np.argsort(ticket, kind="stable")[:count]])


def _js(both: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return both.js > threshold


def _kl(both: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    """KL(base || rl), the direction whose reference is the second: "forward" where the base is the
    target.
    """
    assert answers
    return coarse_kl(answers.row, answers.base, answers.rl) > threshold


def _reverse_kl(both: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    """KL(rl || base), the penalty of RL fine-tuning."""
    assert answers
    return coarse_kl(answers.row, answers.rl, answers.base) > threshold


def coarse_kl(row: Ints, log_p: Floats, log_q: Floats) -> Floats:
    """KL(p || q) in nats, [B], over the cells given, log-probabilities [Q] of `row` [Q], and one
    more for all the rest.

    Merging outcomes never raises a divergence (data-processing inequality), so this is at most the
    KL of the full distributions; and it is finite.
    """
    log_p, log_q = np.maximum(log_p, _MIN_LOG_P), np.maximum(log_q, _MIN_LOG_P)
    p, q = np.exp(log_p), np.exp(log_q)
    inside = np.bincount(row, p * (log_p - log_q))
    rest_p, rest_q = (np.clip(1 - np.bincount(row, mass), _MIN_REST, None) for mass in (p, q))
    return np.asarray(inside + rest_p * np.log(rest_p / rest_q))


def _entropy_base(both: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    assert answers
    return answers.base > threshold


def _entropy_rl(both: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    assert answers
    return answers.rl > threshold


def _dlogp(both: CoupledDraws, answers: Answers | None, threshold: float) -> Bools:
    """log p_int(y) - log p_prim(y) of the primary's token y: the intervention policy finds it much
    less likely.
    """
    assert answers
    return np.where(both.forward, answers.rl - answers.base, answers.base - answers.rl) < threshold


def _argmax(both: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    base, rl = both.nuclei.top1.reshape(2, -1)
    return np.asarray(base != rl)


def _random(both: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return np.asarray(
        uniform(both.key ^ POSITIONS, both.position, np.zeros_like(both.position)) < threshold
    )


def _always(both: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return np.ones(len(both.forward), np.bool_)


def _never(both: CoupledDraws, _: Answers | None, threshold: float) -> Bools:
    return np.zeros(len(both.forward), np.bool_)


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
