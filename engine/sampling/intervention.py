"""Which token is taken, a pure function that both engines evaluate: criterion fired, budget left,
window, EOS.

Both sides call `decide` with the same nuclei, budgets and noise, so both take the same token and
nobody has to announce it.

Dimensions: B rows, I rows of them where an intervention is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.arrays import Bools, Floats, Ints, UInts
from engine.sampling.coupling import CoupledDraws, sample
from engine.sampling.distribution import Nuclei, js_divergence
from engine.sampling.rule import Rule

# Budget of a trajectory that may intervene wherever the criterion fires.
MAX_INTERVENTIONS = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Decisions:
    """What happens at one position of each of B rows.

    token [B]; primary [B]: what the primary takes with the same noise (where the token is given:
    that); intervened [B]: `token` was drawn from the intervention policy; js [B] in nats, NaN where
    only one policy was there.
    """

    token: Ints
    primary: Ints
    intervened: Bools
    js: Floats

    @property
    def effective(self) -> Bools:
        """Whether the intervention changed the token, [B]."""
        return np.asarray(self.token != self.primary)


def allowed(rule: Rule, position: Ints, fires: Bools, left: Ints) -> Ints:
    """The rows [I] that intervene: the criterion fires, the window is open, budget is left ([B]
    each).
    """
    return np.flatnonzero(fires & (left > 0) & (position >= rule.start) & (position < rule.stop))


def decide(
    rule: Rule, both: CoupledDraws, where: Ints, extrapolated: Nuclei | None = None
) -> Decisions:
    """Decide one position of B rows that both policies carry; the rows `where` [I] intervene.

    extrapolated: I rows to draw from there, in place of the intervention policy's nuclei.
    """
    drawn = both.other[where]
    if extrapolated:
        drawn = sample(extrapolated, both.key[where], both.position[where])
    if rule.eos != "keep":
        where, drawn = _without_stops(rule, both, where, drawn, extrapolated)
    token, intervened = both.primary.copy(), np.zeros(len(both.primary), np.bool_)
    token[where], intervened[where] = drawn, True
    return Decisions(token, both.primary, intervened, both.js)


def _without_stops(
    rule: Rule, both: CoupledDraws, where: Ints, drawn: Ints, extrapolated: Nuclei | None
) -> tuple[Ints, Ints]:
    """The interventions that do not propose a stop token: dropped, or drawn again from what else is
    in the nucleus.
    """
    stops = np.isin(drawn, rule.stop_token_ids)
    if rule.eos == "resample" and stops.any():
        again = np.flatnonzero(stops)
        nuclei = extrapolated.take(again) if extrapolated else both.of_other(where[again])
        kept, others = nuclei.without(np.array(rule.stop_token_ids))
        again = again[kept]
        drawn[again] = sample(others, both.key[where[again]], both.position[where[again]])
        stops[again] = False
    return where[~stops], drawn[~stops]


def follow(primary: Nuclei, key: UInts, position: Ints) -> Decisions:
    """Decide one position of B rows that the primary carries alone."""
    token = sample(primary, key, position)
    never = np.zeros(len(token), np.bool_)
    return Decisions(token, token, never, np.full(len(token), np.nan))


def score(base: Nuclei, rl: Nuclei, token: Ints) -> Decisions:
    """Measure one position of B rows whose token is given."""
    never = np.zeros(len(token), np.bool_)
    return Decisions(token, token, never, js_divergence(base, rl))
