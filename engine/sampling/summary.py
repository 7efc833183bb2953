"""Summary: what a device's first pass over the logits leaves of each row, and the nuclei in it.

A summary is small enough to come to the host in one copy. It holds a row's scalars, the token that
the engine was fed, and the first candidates for its nucleus. Nearly every row of a language model
is served by them. The others, and only they, are truncated by torch.

Dimensions: B rows, M candidates that a row has room for, N entries of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.arrays import Bools, Floats, Ints
from engine.sampling.distribution import FIRST_CUT, Candidates, Nuclei, Sampling, truncate

# A packed row: int32 numbers, and float32 ones by their bits.
COUNT = 0
"""Column: the number of candidates, also of those that found no room."""
PREVIOUS = 1
"""Column: the token that the engine was fed last."""
BEST = 2
"""Column: the greatest logit."""
LOG_MASS = 3
"""Column: logarithm of the sum of exp(logit - best); not finite if the row is no distribution.

log p = (logit - best) - log_mass, in this order: great logits lose no digits then.
"""
ENTROPY = 4
"""Column: entropy in nats at temperature 1."""
TOKEN = 5
"""First of M columns: the candidates' tokens, ascending."""
MAX_CANDIDATES = 64
"""M. A row of the first cut may have 256 candidates; those of most have 1 to 5."""
LOG_P = TOKEN + MAX_CANDIDATES
"""First of M columns: the candidates' log-probabilities at the sampling temperature."""
WIDTH = LOG_P + MAX_CANDIDATES
"""Columns of a packed row."""

# Sums of float32 probabilities are equal to their limits up to this.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Summary:
    """The summaries of B rows, on the host."""

    packed: npt.NDArray[np.int32]
    """Packed rows [B, WIDTH]."""

    @property
    def previous(self) -> Ints:
        """The tokens that the engine was fed [B]."""
        return self.packed[:, PREVIOUS].astype(np.int64)

    @property
    def best(self) -> npt.NDArray[np.float32]:
        """Greatest logits [B]."""
        return self.packed[:, BEST].view(np.float32)

    @property
    def log_mass(self) -> npt.NDArray[np.float32]:
        """Logarithms of the sums relative to them [B]."""
        return self.packed[:, LOG_MASS].view(np.float32)

    @property
    def entropy(self) -> npt.NDArray[np.float32]:
        """Entropies in nats [B]."""
        return self.packed[:, ENTROPY].view(np.float32)

    def take(self, rows: Ints) -> Summary:
        """The summaries of the given rows."""
        return Summary(self.packed[rows])

    def nuclei(self, sampling: Sampling) -> tuple[Bools, Nuclei]:
        """The nuclei of the rows whose candidates settle them.

        Args:
            sampling: How distributions are truncated, as in the pass that made the summaries.

        Returns:
            Which rows are settled [B], and the nuclei of these, one after the other.

        Raises:
            FloatingPointError: A row is not a distribution.
        """
        is_bad = ~np.isfinite(self.log_mass)
        if is_bad.any():
            raise FloatingPointError(
                f"the model gave no distribution (NaN or infinite logits) in row {is_bad.argmax()}"
            )
        num_rows = len(self.packed)
        if sampling.temperature == 0:  # the candidates are the tokens that tie for the best
            best = self.packed[:, TOKEN].astype(np.int64)
            return np.ones(num_rows, np.bool_), Nuclei(np.ones_like(best), best, np.ones(num_rows))
        candidates, count = self._candidates()
        if sampling.top_k:
            candidates, is_settled = _top_k(candidates, count, sampling)
        else:
            is_settled = _mass(candidates, num_rows) >= sampling.top_p
            is_settled &= sampling.top_p < 1
        if not is_settled.any():
            none = np.empty(0, np.int64)
            return is_settled, Nuclei(none, none, np.empty(0))
        if not is_settled.all():
            keep, number = is_settled[candidates.row], np.cumsum(is_settled) - 1
            candidates = Candidates(
                number[candidates.row[keep]], candidates.token[keep], candidates.p[keep]
            )
        return is_settled, truncate(candidates, int(is_settled.sum()), sampling)

    def _candidates(self) -> tuple[Candidates, Ints]:
        """The candidates of the rows that had room for all of theirs, and their numbers [B]."""
        count = self.packed[:, COUNT].astype(np.int64)
        count[count > MAX_CANDIDATES] = 0
        row = np.repeat(np.arange(len(count)), count)
        slot = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        log_p = self.packed.view(np.float32)[row, LOG_P + slot]
        order = np.lexsort((-log_p, row))  # ascending tokens stay so among equals
        token = self.packed[row, TOKEN + slot].astype(np.int64)
        return Candidates(row, token[order], np.exp(log_p[order].astype(np.float64))), count


def _mass(candidates: Candidates, num_rows: int) -> Floats:
    """Mass of each row's candidates [B]."""
    return np.bincount(candidates.row, candidates.p, num_rows).astype(np.float64)


def _top_k(candidates: Candidates, count: Ints, sampling: Sampling) -> tuple[Candidates, Bools]:
    """The candidates that top_k leaves, and which rows they settle [B].

    A row with fewer than top_k candidates is settled if the mass of the others, which is known up
    to their number times the cut, cannot move the end of its nucleus.
    """
    row, p = candidates.row, candidates.p
    if not len(row):
        return candidates, np.zeros(len(count), np.bool_)
    start = np.cumsum(count) - count
    is_enough = count >= sampling.top_k
    kth = p[np.minimum(start + sampling.top_k - 1, len(p) - 1)]
    mass = _mass(candidates, len(count))
    most = np.minimum(1, mass + (sampling.top_k - count) * np.exp(FIRST_CUT))
    before = np.cumsum(p) - p
    before -= before[start.clip(max=len(p) - 1)][row]
    is_open = before >= (sampling.top_p - _TOLERANCE) * mass[row]
    is_open &= before < (sampling.top_p + _TOLERANCE) * most[row]
    is_closed = np.bincount(row, is_open, len(count)) == 0
    is_closed &= mass >= (sampling.top_p + _TOLERANCE) * most
    keep = ~is_enough[row] | (p >= kth[row])
    return (
        Candidates(row[keep], candidates.token[keep], p[keep]),
        is_enough | (is_closed & (sampling.top_p < 1) & (count > 0)),
    )
