"""Both policies at the same positions with the same noise: their draws and their divergence.

A token is drawn by Gumbel-max over a nucleus with the noise of (key, position, token). Two policies
that nearly agree therefore nearly always draw the same token, and the token that the primary would
have emitted is known at every intervention.

Dimensions: B rows, N entries of nuclei, I selected rows.
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

    Every array is [B].
    """

    nuclei: Nuclei
    """Nuclei of 2 B rows: those of base, then those of rl."""
    forward: Bools
    """Whether base is the primary, else rl."""
    key: UInts
    """Noise key of each row's sample."""
    position: Ints
    """Position of each row in its response."""
    primary: Ints
    """Token that the primary draws."""
    other: Ints
    """Token that the intervention policy draws."""
    js: Floats
    """Jensen-Shannon divergence of the two nuclei, in nats."""

    def nuclei_of_other(self, rows: Ints) -> Nuclei:
        """The intervention policy's nuclei of the given rows [I]."""
        return self.nuclei.take(rows + len(self.forward) * self.forward[rows])


def sample(nuclei: Nuclei, key: UInts, position: Ints) -> Ints:
    """Draw one token per row by Gumbel-max over its nucleus.

    Args:
        nuclei: Nuclei of B rows.
        key: Noise key of each row's sample [B].
        position: Position of each row in its response [B].

    Returns:
        Token ids [B]. Of tokens with equal scores, the more probable one.
    """
    row = nuclei.row
    score = np.log(nuclei.p) + gumbel(key[row], position[row], nuclei.token)
    best = np.maximum.reduceat(score, nuclei.start)
    # Backwards: where several entries of a row win, the last one written stays, which is the first.
    winner = np.flatnonzero(score == best[row])[::-1]
    token = np.empty(len(best), np.int64)
    token[row[winner]] = nuclei.token[winner]
    return token


def couple(base: Nuclei, rl: Nuclei, forward: Bools, key: UInts, position: Ints) -> CoupledDraws:
    """Draw from both policies with the same noise and measure their divergence.

    Args:
        base: Nuclei of base, B rows.
        rl: Nuclei of rl for the same rows.
        forward: Whether base is the primary [B], else rl.
        key: Noise key of each row's sample [B].
        position: Position of each row in its response [B].
    """
    nuclei, num_rows = stack(base, rl), len(key)
    token = sample(nuclei, np.concatenate((key, key)), np.concatenate((position, position)))
    from_base, from_rl = token[:num_rows], token[num_rows:]
    primary, other = np.where(forward, from_base, from_rl), np.where(forward, from_rl, from_base)
    return CoupledDraws(nuclei, forward, key, position, primary, other, js_divergence(base, rl))
