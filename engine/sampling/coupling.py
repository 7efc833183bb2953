"""Both policies at the same positions with the same noise: what each would take, and how far they
are apart.

A token is drawn by Gumbel-max over a nucleus with the noise of (key, position, token), so two
policies that nearly agree nearly always draw the same token, and what the primary would have
emitted is known at every intervention.

Dimensions: B rows, N entries of nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.arrays import Bools, Floats, Ints, UInts
from engine.sampling.distribution import Nuclei, js_divergence, stack
from engine.sampling.noise import gumbel


@dataclass(frozen=True, slots=True)
class CoupledDraws:
    """Both policies at one position of each of B rows.

    nuclei: base's rows, then rl's, 2 B in all. forward [B]: base is primary, else rl. key, position
    [B]: the noise. primary, other [B]: the token that the primary and the intervention policy draw.
    js [B]: nats, between the nuclei.
    """

    nuclei: Nuclei
    forward: Bools
    key: UInts
    position: Ints
    primary: Ints
    other: Ints
    js: Floats

    def of_other(self, where: Ints) -> Nuclei:
        """The intervention policy's nuclei of the rows `where`."""
        return self.nuclei.take(where + len(self.forward) * self.forward[where])


def sample(nuclei: Nuclei, key: UInts, position: Ints) -> Ints:
    """One token a row, [B], by Gumbel-max over the nucleus; key and position [B] say which noise.

    Equal scores go to the more probable token.
    """
    row = nuclei.row
    score = np.log(nuclei.p) + gumbel(key[row], position[row], nuclei.token)
    best = np.maximum.reduceat(score, nuclei.start)
    winner = np.flatnonzero(score == best[row])[::-1]
    token = np.empty(len(best), np.int64)
    token[row[winner]] = nuclei.token[
        winner
    ]  # where a row has several, the last one stays: its first entry
    return token


def couple(base: Nuclei, rl: Nuclei, forward: Bools, key: UInts, position: Ints) -> CoupledDraws:
    """Draw from both policies with the same noise, and measure how far they are apart."""
    nuclei, num_rows = stack(base, rl), len(key)
    token = sample(nuclei, np.concatenate((key, key)), np.concatenate((position, position)))
    from_base, from_rl = token[:num_rows], token[num_rows:]
    primary, other = np.where(forward, from_base, from_rl), np.where(forward, from_rl, from_base)
    return CoupledDraws(nuclei, forward, key, position, primary, other, js_divergence(base, rl))
