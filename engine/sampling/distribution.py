"""What one position's logits say: the nucleus that is sampled from, and scalars of the full
distribution.

The full distribution stays on its device; what leaves it are the nucleus's candidates and a few
numbers a row. Nuclei of a batch are kept ragged (one flat array of entries and a size a row), since
most hold one to three tokens and none is ever cut short. Formulae: "Sparse but Critical" (arXiv
2603.22446), section 2.1.

Dimensions: B rows, V vocabulary, N entries (all rows' nuclei one after the other).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import numpy as np
import torch

from engine.arrays import Floats, Ints
from engine.sampling.passes import at_least, entropy, num_greater

# exp of it is still a positive number. What lies below has no share in any sample: a token that the
# model masks.
_LOG_NEVER = -700.0
# A row's tokens are looked for above the first of these; further down only while those above do not
# fill top_p. Each bounds the candidates of a row, the first to 256, which hold nearly every nucleus
# of a language model; without the others a flat row would bring its whole vocabulary to the host.
_CUTS = (-log(2.0**8), -log(2.0**12), -log(2.0**16), _LOG_NEVER)
# Rounding of running sums stays below this, so equal masses are cut alike wherever a row stands in
# its batch.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a distribution is truncated: temperature, then top_k (0: off; ties at the k-th stay),
    then top_p.
    """

    temperature: float
    top_p: float
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Truncated, renormalised distributions of B rows, the most probable token first.

    size [B] entries a row; token [N] ids; p [N] probabilities, each row sums to 1.
    """

    size: Ints
    token: Ints
    p: Floats

    @property
    def row(self) -> Ints:
        """Row of each entry, [N]."""
        return np.repeat(np.arange(len(self.size)), self.size)

    @property
    def start(self) -> Ints:
        """Index of each row's first entry, [B]."""
        return np.cumsum(self.size) - self.size

    @property
    def top1(self) -> Ints:
        """Most probable token of each row, [B]."""
        return self.token[self.start]

    def take(self, rows: Ints) -> Nuclei:
        """These rows, in this order."""
        size = self.size[rows]
        place = np.arange(size.sum()) - np.repeat(
            np.cumsum(size) - size, size
        )  # of an entry in its row
        entry = np.repeat(self.start[rows], size) + place
        return Nuclei(size, self.token[entry], self.p[entry])

    def without(self, tokens: Ints) -> tuple[Ints, Nuclei]:
        """The rows that hold other tokens than these, and their nuclei without these,
        renormalised.
        """
        keep = ~np.isin(self.token, tokens)
        row, p = self.row[keep], self.p[keep]
        mass = np.bincount(row, p, len(self.size))
        rows = np.flatnonzero(mass)
        return rows, Nuclei(
            np.bincount(row, minlength=len(self.size))[rows], self.token[keep], p / mass[row]
        )


def stack(a: Nuclei, b: Nuclei) -> Nuclei:
    """The rows of `a`, then those of `b`."""
    return Nuclei(
        *(np.concatenate((getattr(a, name), getattr(b, name))) for name in ("size", "token", "p"))
    )


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Full distribution at temperature 1 of logits [B, V]: float32 log-probabilities, on the same
    device.
    """
    return torch.log_softmax(logits, -1, dtype=torch.float32)


def nuclei(log_p: torch.Tensor, sampling: Sampling) -> Nuclei:
    """Nuclei of distributions given as log-probabilities [B, V] (float32, any device).

    The nucleus is the shortest prefix of the tokens, by falling probability and then rising id,
    whose mass reaches top_p. Raises FloatingPointError when a row is not a distribution (its logits
    hold NaN, +inf or only -inf).
    """
    if sampling.temperature == 0:
        return _greedy(log_p)
    if sampling.temperature != 1:
        log_p = torch.log_softmax(log_p / sampling.temperature, -1)
    if sampling.top_k >= log_p.shape[-1]:
        sampling = replace(sampling, top_k=0)
    return _truncate(_candidates(log_p, sampling), len(log_p), sampling)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Entries [N], ordered by row, then falling p, then rising token; enough of each row to fill
    its nucleus.
    """

    row: Ints
    token: Ints
    p: Floats


def _candidates(log_p: torch.Tensor, sampling: Sampling) -> _Candidates:
    """Look for the nuclei among the tokens that are not rare; where that does not do, among rarer
    ones.
    """
    if sampling.top_k:
        return _above(log_p, log_p.topk(sampling.top_k, -1).values[:, -1:].clamp(min=_LOG_NEVER))
    if sampling.top_p == 1:
        return _above(log_p, _LOG_NEVER)
    found = _above(log_p, _CUTS[0])
    for cut in _CUTS[1:]:
        short = np.flatnonzero(np.bincount(found.row, found.p, len(log_p)) < sampling.top_p)
        if not len(short):
            break
        found = _widen(found, log_p, short, cut)
    return found


def _above(log_p: torch.Tensor, cut: torch.Tensor | float) -> _Candidates:
    """All entries >= cut. These few are all of the distribution that leaves the device."""
    flat, value = at_least(log_p, cut)
    row, token = np.divmod(flat, log_p.shape[-1])
    order = np.lexsort((-value, row))
    return _Candidates(row[order], token[order], np.exp(value[order].astype(np.float64)))


def _widen(found: _Candidates, log_p: torch.Tensor, short: Ints, cut: float) -> _Candidates:
    """Replace the candidates of the rows `short` by all that are above `cut`."""
    more = _above(log_p[torch.from_numpy(short).to(log_p.device)], cut)
    keep = ~np.isin(found.row, short)
    row = np.concatenate((found.row[keep], short[more.row]))
    order = np.argsort(row, kind="stable")
    token, p = (
        np.concatenate((found.token[keep], more.token)),
        np.concatenate((found.p[keep], more.p)),
    )
    return _Candidates(row[order], token[order], p[order])


def _truncate(found: _Candidates, num_rows: int, sampling: Sampling) -> Nuclei:
    """Cut each row's candidates at top_p of their mass (with top_k: of what top_k left), and
    renormalise.
    """
    count = np.bincount(found.row, minlength=num_rows)
    if not count.all():
        raise FloatingPointError(
            f"the model gave no distribution (NaN or infinite logits) in row {count.argmin()}"
        )
    start = np.cumsum(count) - count
    p = found.p
    if sampling.top_k:
        p = p / np.add.reduceat(p, start)[found.row]
    before = np.cumsum(p) - p
    keep = before - before[start][found.row] < (
        sampling.top_p - _ROUNDING if sampling.top_p < 1 else np.inf
    )
    keep[start] = True
    row, p = found.row[keep], p[keep]
    size = np.bincount(row, minlength=num_rows)
    mass = np.add.reduceat(p, np.cumsum(size) - size)
    return Nuclei(size, found.token[keep], p / mass[row])


def _greedy(log_p: torch.Tensor) -> Nuclei:
    """Temperature 0: the nucleus is the most probable token, the lowest id among equals."""
    top = log_p.max(-1, keepdim=True).values
    if not bool(torch.isfinite(top).all()):
        raise FloatingPointError("the model gave no distribution (NaN or infinite logits)")
    token = (log_p == top).int().argmax(-1).cpu().numpy()
    return Nuclei(np.ones(len(token), np.int64), token, np.ones(len(token)))


def extrapolate(
    log_p: Floats, log_q: Floats, token: Ints, strength: float, sampling: Sampling
) -> Nuclei:
    """Nuclei of (1 + g) log p - g log q with g = strength, over the tokens [B, M] whose
    log-probabilities are given.

    Both are of the full distributions at temperature 1, [B, M]; renormalised over these tokens,
    then truncated like any other (arXiv 2603.22117, the extrapolated policy).
    """
    num_rows, num_tokens = token.shape
    score = (1 + strength) * log_p - strength * np.maximum(log_q, _LOG_NEVER)
    greedy = sampling.temperature == 0
    score = (score - score.max(1, keepdims=True)) / (1 if greedy else sampling.temperature)
    p = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    top_k = 1 if greedy else sampling.top_k
    keep = p > 0
    if 0 < top_k < num_tokens:
        keep &= p >= np.partition(p, -top_k, 1)[:, [-top_k]]
    row = np.repeat(np.arange(num_rows), keep.sum(1))
    order = np.lexsort((token[keep], -p[keep], row))
    found = _Candidates(row[order], token[keep][order], p[keep][order])
    if greedy:
        return Nuclei(
            np.ones(num_rows, np.int64),
            found.token[np.searchsorted(row, np.arange(num_rows))],
            np.ones(num_rows),
        )
    return _truncate(found, num_rows, sampling)


def js_divergence(a: Nuclei, b: Nuclei) -> Floats:
    """Jensen-Shannon divergence in nats, [B], in [0, ln 2], between nuclei of the same rows.

    JS = KL(a || m) / 2 + KL(b || m) / 2, m = (a + b) / 2 (arXiv 2603.22446, section 2.1). Exactly 0
    for equal nuclei.
    """
    num_rows = len(a.size)
    row, p = np.concatenate((a.row, b.row)), np.concatenate((a.p, b.p))
    key = (row << 32) + np.concatenate((a.token, b.token))
    # Equal (row, token) keys stand next to each other after the sort: there the other side's p is
    # the neighbour's.
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
    """Scalars of full distributions, log-probabilities [B, V]: float32 [B, 1 + 2 T], on the device.

    Columns: entropy in nats; log-probabilities in nats of token [B, T]; ranks of token [B, T],
    where 1 is best and equals share the better rank. (float32 holds every rank below 2**24
    exactly.)
    """
    chosen = log_p.gather(1, token)
    return torch.cat((entropy(log_p)[:, None], chosen, num_greater(log_p, chosen) + 1), 1)
