"""Which token is taken: criterion, budget and `decide`, a pure function that both engines evaluate.

Both sides call it with the same nuclei, budgets and noise, so both take the same token and nobody has to announce it.
The switching rule is S = 1{ JS(primary, intervention) > threshold } (arXiv 2603.22446, section 3).

Dimensions: B rows, N entries of nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.distribution import Nuclei, js_divergence
from engine.noise import UInt64, gumbel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Budget of a trajectory that may intervene wherever the criterion fires.
UNLIMITED = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Decisions:
    """What happens at one position of each of B rows.

    token [B]; intervened [B]: drawn from the intervention policy; effective [B]: the primary, with the same noise,
    would have taken another token; js [B] in nats, NaN where only one policy was there.
    """

    token: Ints
    intervened: Bools
    effective: Bools
    js: Floats


def sample(nuclei: Nuclei, key: UInt64, position: Ints) -> Ints:
    """One token a row, [B], by Gumbel-max over the nucleus; key and position [B] say which noise.

    Equal scores go to the more probable token.
    """
    row = nuclei.row
    score = np.log(nuclei.p) + gumbel(key[row], position[row], nuclei.token)
    best = np.maximum.reduceat(score, nuclei.start)
    winner = np.flatnonzero(score == best[row])
    first = np.searchsorted(row[winner], np.arange(len(nuclei.size)))
    return nuclei.token[winner[first]]


def _sample_both(base: Nuclei, rl: Nuclei, key: UInt64, position: Ints) -> tuple[Ints, Ints]:
    """One token a row from each policy with the same noise: one pass over both, stacked."""
    stacked = Nuclei(*(np.concatenate((getattr(base, name), getattr(rl, name))) for name in ("size", "token", "p")))
    token = sample(stacked, np.tile(key, 2), np.tile(position, 2))
    return token[: len(key)], token[len(key) :]


def decide(
    base: Nuclei, rl: Nuclei, forward: Bools, left: Ints, threshold: float, key: UInt64, position: Ints
) -> Decisions:
    """Decide one position of B rows that both policies carry.

    forward [B]: base is primary, else rl. left [B]: interventions still allowed.
    """
    js = js_divergence(base, rl)
    from_base, from_rl = _sample_both(base, rl, key, position)
    primary = np.where(forward, from_base, from_rl)
    intervened = (js > threshold) & (left > 0)
    token = np.where(intervened, np.where(forward, from_rl, from_base), primary)
    return Decisions(token, intervened, token != primary, js)


def follow(primary: Nuclei, key: UInt64, position: Ints) -> Decisions:
    """Decide one position of B rows that the primary carries alone."""
    token = sample(primary, key, position)
    never = np.zeros(len(token), np.bool_)
    return Decisions(token, never, never, np.full(len(token), np.nan))
