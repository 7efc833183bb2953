"""What one position's logits say: the nucleus that is sampled from, and scalars of the full distribution.

The full distribution stays on its device; what leaves it are the nucleus's candidates and a few numbers a row.
Nuclei of a batch are kept ragged (one flat array of entries and a size a row), since most hold one to three tokens
and none is ever cut short. Formulae: "Sparse but Critical" (arXiv 2603.22446), section 2.1.

Dimensions: B rows, V vocabulary, N entries (all rows' nuclei one after the other).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A token less probable than this is looked for only when those above it do not fill top_p: 1 / _RARE bounds the
# candidates a row, and nearly every nucleus of a language model at top_p <= 0.95 lies above it.
_RARE = 1 / 256


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a distribution is truncated: temperature, then top_k (0: off; ties at the k-th stay), then top_p."""

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


def nuclei(logits: torch.Tensor, sampling: Sampling) -> Nuclei:
    """Nuclei of logits [B, V] (float32, any device).

    The nucleus is the shortest prefix of the tokens, by falling logit and then rising id, whose mass reaches top_p.
    Raises FloatingPointError when a row is not a distribution (NaN, or all -inf).
    """
    if sampling.temperature == 0:
        return _greedy(logits)
    scaled = logits if sampling.temperature == 1 else logits / sampling.temperature
    norm = torch.logsumexp(scaled, -1)
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        cut = scaled.topk(sampling.top_k, -1).values[:, -1]
    elif sampling.top_p < 1:
        cut = norm + np.log((1 - sampling.top_p) * _RARE if sampling.top_p > 0.95 else _RARE)
    else:
        cut = torch.full_like(norm, torch.finfo(norm.dtype).min)
    norm_host = norm.double().cpu().numpy()
    if not np.isfinite(norm_host).all():
        raise FloatingPointError(f"logits of rows {np.flatnonzero(~np.isfinite(norm_host)).tolist()} are not finite")
    found = _candidates(scaled, cut, norm_host)
    if not sampling.top_k:
        short = np.flatnonzero(np.bincount(found.row, found.p, len(norm_host)) < sampling.top_p)
        if len(short) and sampling.top_p < 1:
            found = _widen(found, scaled, norm_host, short)
    return _truncate(found, len(norm_host), sampling)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Entries [N] of some rows, rows ascending; within a row by falling p, ties by rising token."""

    row: Ints
    token: Ints
    p: Floats


def _candidates(scaled: torch.Tensor, cut: torch.Tensor, norm: Floats) -> _Candidates:
    """Tokens with logit >= cut; p is their share of the whole distribution. One copy to the host."""
    row, token = (scaled >= cut[:, None]).nonzero(as_tuple=True)
    packed = torch.stack((row, token, scaled[row, token].float().view(torch.int32).long())).cpu().numpy()
    value = packed[2].astype(np.int32).view(np.float32)
    order = np.lexsort((-value, packed[0]))
    row_host = packed[0][order]
    return _Candidates(row_host, packed[1][order], np.exp(value[order] - norm[row_host]))


def _widen(found: _Candidates, scaled: torch.Tensor, norm: Floats, short: Ints) -> _Candidates:
    """Replace the candidates of the rows `short` by their whole distribution."""
    index = torch.as_tensor(short, device=scaled.device)
    lowest = torch.full((len(short),), torch.finfo(scaled.dtype).min, device=scaled.device)
    every = _candidates(scaled[index], lowest, norm[short])
    keep = ~np.isin(found.row, short)
    row = np.concatenate((found.row[keep], short[every.row]))
    order = np.argsort(row, kind="stable")
    token, p = (np.concatenate(pair)[order] for pair in ((found.token[keep], every.token), (found.p[keep], every.p)))
    return _Candidates(row[order], token, p)


def _truncate(found: _Candidates, num_rows: int, sampling: Sampling) -> Nuclei:
    """Cut each row's candidates at top_p of their mass (with top_k: of what top_k left), and renormalise."""
    count = np.bincount(found.row, minlength=num_rows)
    start = np.cumsum(count) - count
    p = found.p
    if sampling.top_k:
        p = p / np.add.reduceat(p, start)[found.row]
    before = np.cumsum(p) - p
    keep = before - before[start][found.row] < sampling.top_p
    keep[start] = True
    row, p = found.row[keep], p[keep]
    size = np.bincount(row, minlength=num_rows)
    mass = np.add.reduceat(p, np.cumsum(size) - size)
    return Nuclei(size, found.token[keep], p / mass[row])


def _greedy(logits: torch.Tensor) -> Nuclei:
    """Temperature 0: the nucleus is the most probable token, the lowest id among equals."""
    top = logits.max(-1, keepdim=True).values
    if not bool(torch.isfinite(top).all()):
        raise FloatingPointError("logits are not finite")
    token = (logits == top).int().argmax(-1).cpu().numpy()
    return Nuclei(np.ones(len(token), np.int64), token, np.ones(len(token)))


def js_divergence(a: Nuclei, b: Nuclei) -> Floats:
    """Jensen-Shannon divergence in nats, [B], in [0, ln 2], between nuclei of the same rows.

    JS = KL(a || m) / 2 + KL(b || m) / 2, m = (a + b) / 2 (arXiv 2603.22446, section 2.1). Exactly 0 for equal nuclei.
    """
    num_rows = len(a.size)
    row, p = np.concatenate((a.row, b.row)), np.concatenate((a.p, b.p))
    key = (row << 32) + np.concatenate((a.token, b.token))
    # Equal (row, token) keys stand next to each other after the sort: there the other side's p is the neighbour's.
    order = np.argsort(key, kind="stable")
    key, sorted_p = key[order], p[order]
    same = key[1:] == key[:-1]
    other = np.zeros_like(sorted_p)
    other[1:][same] = sorted_p[:-1][same]
    other[:-1][same] = sorted_p[1:][same]
    terms = sorted_p * np.log(2 * sorted_p / (sorted_p + other))
    js = 0.5 * np.bincount(key >> 32, terms, num_rows)
    return np.clip(js, 0.0, np.log(2.0))


def measure(logits: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Scalars of the full distribution of logits [B, V] at temperature 1, float32 [B, 1 + 2 T], on the device.

    Columns: entropy in nats; log-probabilities in nats of token [B, T]; ranks of token [B, T], where 1 is best and
    equals share the better rank. (float32 holds every rank below 2**24 exactly.)
    """
    log_p = torch.log_softmax(logits, -1)
    # exp(-inf) * clamp(-inf) is 0, where exp(-inf) * -inf would be NaN.
    entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1, keepdim=True)
    chosen = logits.gather(1, token)
    rank = [(logits > chosen[:, t, None]).sum(-1, keepdim=True) + 1 for t in range(token.shape[1])]
    return torch.cat((entropy, log_p.gather(1, token), *rank), 1)
