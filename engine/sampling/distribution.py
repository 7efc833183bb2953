"""Distributions of one position: the nucleus to sample from, and scalars of the full one.

The full distribution stays on its device. Only the nucleus's candidates and a few numbers per row
leave it. Nuclei of a batch are ragged (one flat array of entries and a size per row), since most
hold one to three tokens and none is ever cut short. The formulae are those of "Sparse but Critical"
(arXiv 2603.22446), section 2.1.

Dimensions: B rows, V vocabulary, N entries (all rows' nuclei, one after the other), M and T
tokens per row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import numpy as np
import torch

from engine.arrays import Floats, Ints
from engine.sampling.passes import entropy, find_at_least, num_greater, take_rows

# Its exponential is still a positive number. A token below has no share in any sample: the model
# masks it.
_MIN_LOG_P = -700.0
# A row's candidates are the tokens above the first cut. A lower cut is used only while those above
# do not fill top_p. Each cut bounds the number of candidates, the first to 256, which hold nearly
# every nucleus of a language model. Without the middle ones a flat row would bring its whole
# vocabulary to the host.
FIRST_CUT = -log(2.0**8)
"""Log-probability from which on a token is a candidate at first."""
_MORE_CUTS = (-log(2.0**12), -log(2.0**16), _MIN_LOG_P)
# Rounding of running sums stays below this, so equal masses are cut alike wherever a row stands in
# its batch.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a distribution is truncated: by temperature, then top_k, then top_p."""

    temperature: float
    """0 leaves the most probable token alone."""
    top_p: float
    """Share of the mass that the nucleus must reach; 1 leaves every token."""
    top_k: int = 0
    """Number of tokens to keep, and those that tie with the last one; 0 is off."""


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Truncated, renormalised distributions of B rows, the most probable token first."""

    size: Ints
    """Entries of each row [B]."""
    token: Ints
    """Token id of each entry [N]."""
    p: Floats
    """Probability of each entry [N]. Each row sums to 1."""

    @property
    def row(self) -> Ints:
        """Row of each entry [N]."""
        return np.repeat(np.arange(len(self.size)), self.size)

    @property
    def start(self) -> Ints:
        """Index of each row's first entry [B]."""
        return np.cumsum(self.size) - self.size

    @property
    def top1(self) -> Ints:
        """Most probable token of each row [B]."""
        return self.token[self.start]

    def take(self, rows: Ints) -> Nuclei:
        """The nuclei of the given rows, in their order."""
        size = self.size[rows]
        entry = ranges(self.start[rows], size)
        return Nuclei(size, self.token[entry], self.p[entry])

    def without(self, tokens: Ints) -> tuple[Ints, Nuclei]:
        """Leave tokens out and renormalise.

        Returns:
            The rows that hold other tokens, ascending, and their nuclei.
        """
        keep = ~np.isin(self.token, tokens)
        row, p = self.row[keep], self.p[keep]
        mass = np.bincount(row, p, len(self.size))
        rows = np.flatnonzero(mass)
        return rows, Nuclei(
            np.bincount(row, minlength=len(self.size))[rows], self.token[keep], p / mass[row]
        )


def ranges(start: Ints, size: Ints) -> Ints:
    """The integers of some ranges, one range after the other.

    Args:
        start: First integer of each range [B].
        size: Length of each range [B].
    """
    index_in_range = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    return np.asarray(np.repeat(start, size) + index_in_range)


def stack(a: Nuclei, b: Nuclei) -> Nuclei:
    """The nuclei of `a`, then those of `b`."""
    return Nuclei(
        *(np.concatenate((getattr(a, name), getattr(b, name))) for name in ("size", "token", "p"))
    )


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Full distributions at temperature 1.

    Args:
        logits: Logits [B, V], on any device.

    Returns:
        Log-probabilities [B, V] in float32, on the same device.
    """
    return torch.log_softmax(logits, -1, dtype=torch.float32)


def nuclei(log_p: torch.Tensor, sampling: Sampling) -> Nuclei:
    """Truncate full distributions to their nuclei.

    The nucleus is the shortest prefix of the tokens, by falling probability and then rising id,
    whose mass reaches top_p.

    Args:
        log_p: Log-probabilities [B, V] in float32, on any device.
        sampling: How to truncate them.

    Raises:
        FloatingPointError: A row is not a distribution: its logits hold NaN, +inf or only -inf.
    """
    if sampling.temperature == 0:
        return _greedy(log_p)
    if sampling.temperature != 1:
        log_p = torch.log_softmax(log_p / sampling.temperature, -1)
    if sampling.top_k >= log_p.shape[-1]:
        sampling = replace(sampling, top_k=0)
    return truncate(_candidates(log_p, sampling), len(log_p), sampling)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Entries that fill each row's nucleus, ordered by row, then falling p, then rising token.

    Every array is [N].
    """

    row: Ints
    token: Ints
    p: Floats
    """Shares of the whole mass at the sampling temperature."""


def _candidates(log_p: torch.Tensor, sampling: Sampling) -> Candidates:
    """Entries that may be in the nuclei, rare ones only where the others do not fill top_p."""
    if sampling.top_k:
        kth = log_p.topk(sampling.top_k, -1).values[:, -1:]
        return _candidates_above(log_p, kth.clamp(min=_MIN_LOG_P))
    if sampling.top_p == 1:
        return _candidates_above(log_p, _MIN_LOG_P)
    candidates = _candidates_above(log_p, FIRST_CUT)
    for cut in _MORE_CUTS:
        mass = np.bincount(candidates.row, candidates.p, len(log_p))
        short_rows = np.flatnonzero(mass < sampling.top_p)
        if not len(short_rows):
            break
        candidates = _widen(candidates, log_p, short_rows, cut)
    return candidates


def _candidates_above(log_p: torch.Tensor, cut: torch.Tensor | float) -> Candidates:
    """All entries >= cut. Of the distribution only these few leave the device."""
    flat, value = find_at_least(log_p, cut)
    row, token = np.divmod(flat, log_p.shape[-1])
    order = np.lexsort((-value, row))
    return Candidates(row[order], token[order], np.exp(value[order].astype(np.float64)))


def _widen(candidates: Candidates, log_p: torch.Tensor, short_rows: Ints, cut: float) -> Candidates:
    """Replace the candidates of the rows `short_rows` by all entries >= cut."""
    more = _candidates_above(take_rows(log_p, short_rows), cut)
    keep = ~np.isin(candidates.row, short_rows)
    row = np.concatenate((candidates.row[keep], short_rows[more.row]))
    token = np.concatenate((candidates.token[keep], more.token))
    p = np.concatenate((candidates.p[keep], more.p))
    order = np.argsort(row, kind="stable")
    return Candidates(row[order], token[order], p[order])


def truncate(candidates: Candidates, num_rows: int, sampling: Sampling) -> Nuclei:
    """Cut each row's candidates at top_p of the mass (with top_k, of their mass); renormalise.

    Args:
        candidates: Candidates that fill the nucleus of every row.
        num_rows: B.
        sampling: Where to cut.

    Raises:
        FloatingPointError: A row has no candidate.
    """
    count = np.bincount(candidates.row, minlength=num_rows)
    if not count.all():
        raise FloatingPointError(
            f"the model gave no distribution (NaN or infinite logits) in row {count.argmin()}"
        )
    start = np.cumsum(count) - count
    p = candidates.p
    if sampling.top_k:
        p = p / np.add.reduceat(p, start)[candidates.row]
    before = np.cumsum(p) - p
    mass_limit = sampling.top_p - _ROUNDING if sampling.top_p < 1 else np.inf
    keep = before - before[start][candidates.row] < mass_limit
    keep[start] = True
    row, p = candidates.row[keep], p[keep]
    size = np.bincount(row, minlength=num_rows)
    mass = np.add.reduceat(p, np.cumsum(size) - size)
    return Nuclei(size, candidates.token[keep], p / mass[row])


def _greedy(log_p: torch.Tensor) -> Nuclei:
    """Nuclei at temperature 0: the most probable token alone, the lowest id among equals."""
    top = log_p.max(-1, keepdim=True).values
    if not bool(torch.isfinite(top).all()):
        raise FloatingPointError("the model gave no distribution (NaN or infinite logits)")
    token = (log_p == top).int().argmax(-1).cpu().numpy()
    return Nuclei(np.ones(len(token), np.int64), token, np.ones(len(token)))


def extrapolate(
    log_p: Floats, log_q: Floats, token: Ints, strength: float, sampling: Sampling
) -> Nuclei:
    """Nuclei of the extrapolated policy (1 + g) log p - g log q (arXiv 2603.22117).

    The mixture is renormalised over the given tokens, then truncated like any distribution.

    Args:
        log_p: Log-probabilities of the tokens in the full distribution p at temperature 1 [B, M].
        log_q: The same of q [B, M].
        token: Token ids [B, M].
        strength: g.
        sampling: How to truncate the mixture.
    """
    num_rows, num_tokens = token.shape
    score = (1 + strength) * log_p - strength * np.maximum(log_q, _MIN_LOG_P)
    greedy = sampling.temperature == 0
    score = (score - score.max(1, keepdims=True)) / (1 if greedy else sampling.temperature)
    p = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    top_k = 1 if greedy else sampling.top_k
    keep = p > 0
    if 0 < top_k < num_tokens:
        keep &= p >= np.partition(p, -top_k, 1)[:, [-top_k]]
    row = np.repeat(np.arange(num_rows), keep.sum(1))
    order = np.lexsort((token[keep], -p[keep], row))
    candidates = Candidates(row[order], token[keep][order], p[keep][order])
    if greedy:
        best = candidates.token[np.searchsorted(row, np.arange(num_rows))]
        return Nuclei(np.ones(num_rows, np.int64), best, np.ones(num_rows))
    return truncate(candidates, num_rows, sampling)


def js_divergence(a: Nuclei, b: Nuclei) -> Floats:
    """Jensen-Shannon divergence between two nuclei of each row.

    JS = KL(a || m) / 2 + KL(b || m) / 2 with m = (a + b) / 2 (arXiv 2603.22446, section 2.1).

    Returns:
        Divergences [B] in nats, from 0 to ln 2; exactly 0 for equal nuclei.
    """
    num_rows = len(a.size)
    row, p = np.concatenate((a.row, b.row)), np.concatenate((a.p, b.p))
    key = (row << 32) + np.concatenate((a.token, b.token))
    # After the sort equal (row, token) keys stand next to each other, so that the other nucleus's p
    # is the neighbour's.
    order = np.argsort(key, kind="stable")
    key, sorted_p = key[order], p[order]
    same = key[1:] == key[:-1]
    other = np.zeros_like(sorted_p)
    other[1:][same] = sorted_p[:-1][same]
    other[:-1][same] = sorted_p[1:][same]
    terms = sorted_p * np.log(2 * sorted_p / (sorted_p + other))
    js = 0.5 * np.bincount(key >> 32, terms, num_rows)
    return np.clip(js, 0.0, np.log(2.0))


def measure(log_p: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Scalars of full distributions: entropy, and log-probability and rank of some tokens.

    Args:
        log_p: Log-probabilities [B, V] on the CPU.
        token: Token ids [B, T].

    Returns:
        Numbers [B, 1 + 2 T] in float32. The columns are the entropy in nats, the T
        log-probabilities in nats and the T ranks. Rank 1 is best, and equals share the better rank.
        float32 holds every rank below 2**24 exactly.
    """
    log_p_of_token = log_p.gather(1, token)
    rank = num_greater(log_p, log_p_of_token) + 1
    return torch.cat((entropy(log_p)[:, None], log_p_of_token, rank), 1)
