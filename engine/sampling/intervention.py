"""The decision: which token is taken, a pure function that both engines evaluate.

Both sides call `decide` with the same nuclei, budgets and noise, so both take the same token and
neither has to announce it.

Dimensions: B rows, I of them that intervene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.arrays import Bools, Floats, Ints, UInts
from engine.sampling.coupling import CoupledDraws, sample
from engine.sampling.distribution import Nuclei, js_divergence
from engine.sampling.rule import Rule

MAX_INTERVENTIONS = np.iinfo(np.int32).max
"""Budget of a trajectory that may intervene wherever the criterion fires."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What happens at one position of each of B rows.

    Every array is [B].
    """

    token: Ints
    """The token that is taken."""
    primary: Ints
    """The token that the primary draws with the same noise; where none is drawn, `token`."""
    intervened: Bools
    """Whether `token` was drawn from the intervention policy."""
    js: Floats
    """Jensen-Shannon divergence of the two nuclei in nats; NaN where there was one policy only."""

    @property
    def effective(self) -> Bools:
        """Whether the intervention changed the token [B]."""
        return np.asarray(self.token != self.primary)


def allowed_rows(rule: Rule, position: Ints, fires: Bools, budget_left: Ints) -> Ints:
    """The rows that intervene: their criterion fires, in the window, with budget left.

    Args:
        rule: The rule, for its window.
        position: Position of each row in its response [B].
        fires: Whether the criterion fires [B].
        budget_left: Interventions that each row has left [B].

    Returns:
        Indices of rows [I], ascending.
    """
    in_window = (position >= rule.start) & (position < rule.stop)
    return np.flatnonzero(fires & (budget_left > 0) & in_window)


def decide(
    rule: Rule, draws: CoupledDraws, rows: Ints, extrapolated: Nuclei | None = None
) -> Decisions:
    """Decide one position of B rows that both policies carry.

    Args:
        rule: The rule, for its treatment of stop tokens.
        draws: Both policies at the B rows.
        rows: Indices of the rows that intervene [I].
        extrapolated: Nuclei of I rows that replace those of the intervention policy.
    """
    token_drawn = draws.other[rows]
    if extrapolated:
        token_drawn = sample(extrapolated, draws.key[rows], draws.position[rows])
    if rule.eos != "keep":
        rows, token_drawn = _without_stops(rule, draws, rows, token_drawn, extrapolated)
    token, intervened = draws.primary.copy(), np.zeros(len(draws.primary), np.bool_)
    token[rows], intervened[rows] = token_drawn, True
    return Decisions(token, draws.primary, intervened, draws.js)


def _without_stops(
    rule: Rule, draws: CoupledDraws, rows: Ints, token_drawn: Ints, extrapolated: Nuclei | None
) -> tuple[Ints, Ints]:
    """Rows and tokens of the interventions, stop tokens dropped or, if the rule says, redrawn."""
    stops = np.isin(token_drawn, rule.stop_token_ids)
    if rule.eos == "resample" and stops.any():
        redrawn = np.flatnonzero(stops)
        if extrapolated:
            nuclei = extrapolated.take(redrawn)
        else:
            nuclei = draws.nuclei_of_other(rows[redrawn])
        kept, other_tokens = nuclei.without(np.array(rule.stop_token_ids))
        redrawn = redrawn[kept]
        key, position = draws.key[rows[redrawn]], draws.position[rows[redrawn]]
        token_drawn[redrawn] = sample(other_tokens, key, position)
        stops[redrawn] = False
    return rows[~stops], token_drawn[~stops]


def follow(primary: Nuclei, key: UInts, position: Ints) -> Decisions:
    """Decide one position of B rows that the primary carries alone.

    Args:
        primary: Nuclei of the primary, B rows.
        key: Noise key of each row's sample [B].
        position: Position of each row in its response [B].
    """
    token = sample(primary, key, position)
    never = np.zeros(len(token), np.bool_)
    return Decisions(token, token, never, np.full(len(token), np.nan))


def score(base: Nuclei, rl: Nuclei, token: Ints) -> Decisions:
    """Score one position of B rows of external responses: no draw, only the divergence.

    Args:
        base: Nuclei of base, B rows.
        rl: Nuclei of rl for the same rows.
        token: The responses' own tokens [B].
    """
    never = np.zeros(len(token), np.bool_)
    return Decisions(token, token, never, js_divergence(base, rl))
