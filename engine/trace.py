"""Trace: what one sampler saw at each position, kept as arrays until sequences finish. No Python object a token.

Blocks are appended a step and put together when they are collected. A position that was decided twice (chunked
prefill, preemption) is there twice; the last one counts. Numbers that were computed on a device stay on it until then.

Dimensions: B rows of a step, N rows of the trace, K ids of a top-k list.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from engine.distribution import Nuclei
from engine.intervention import Decisions
from engine.rendezvous import Rows

# What the host knows of a row; the rest are the device's numbers (distribution.measure) and the top-k lists.
_HOST = np.dtype(
    [
        ("sequence", np.int32),
        ("position", np.int32),
        ("token", np.int32),
        ("intervened", np.bool_),
        ("effective", np.bool_),
        ("primary_token", np.int32),
        ("js", np.float32),
        ("nucleus", np.int32),
        ("top1", np.int32),
    ]
)
_DEVICE = ("entropy", "logp", "logp_of_other_top1", "rank", "rank_of_other_top1")


class Trace:
    """Rows of the sequences that are under way."""

    def __init__(self, record_threshold: float, record_top_k: int) -> None:
        self._record_threshold, self._record_top_k = record_threshold, record_top_k
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._host: list[npt.NDArray[np.void]] = []
        self._device: list[torch.Tensor] = []
        self._top_k: list[torch.Tensor] = []
        self._top_k_row: list[npt.NDArray[np.int64]] = []
        self._num_rows = 0

    def append(
        self, rows: Rows, decisions: Decisions, mine: Nuclei, log_p: torch.Tensor, measured: torch.Tensor
    ) -> None:
        """Add one step: B rows, log-probabilities [B, V] and `measured` [B, 5] of `distribution.measure`."""
        block = np.empty(len(rows.sequence), _HOST)
        block["sequence"], block["position"] = rows.sequence, rows.position
        block["token"], block["js"] = decisions.token, decisions.js
        block["intervened"], block["effective"] = decisions.intervened, decisions.effective
        block["primary_token"] = decisions.primary
        block["nucleus"], block["top1"] = mine.size, mine.top1
        self._host.append(block)
        self._device.append(measured)
        shifted = np.flatnonzero(decisions.js >= self._record_threshold)
        if len(shifted):
            k = min(self._record_top_k, log_p.shape[-1])
            self._top_k.append(log_p[torch.from_numpy(shifted).to(log_p.device)].topk(k, -1).indices)
            self._top_k_row.append(shifted + self._num_rows)
        self._num_rows += len(block)

    def collect(self, finished: npt.NDArray[np.int64]) -> pa.RecordBatch:
        """Take out the rows of the sequences `finished`, ordered by (sequence, position)."""
        host = np.concatenate([np.empty(0, _HOST), *self._host])
        device = torch.cat(self._device) if self._device else torch.empty(0, len(_DEVICE))
        # Trace row -> row of the top-k block, -1 where none was recorded.
        listed = np.full(len(host), -1, np.int64)
        listed[np.concatenate([np.empty(0, np.int64), *self._top_k_row])] = np.arange(sum(map(len, self._top_k)))
        top_k = torch.cat(self._top_k) if self._top_k else torch.empty(0, self._record_top_k, dtype=torch.int64)
        gone = np.isin(host["sequence"], finished)
        self._keep(np.flatnonzero(~gone), host, device, listed, top_k)
        order = _last_of_each(host, np.flatnonzero(gone))
        measured = device[torch.from_numpy(order).to(device.device)].float().cpu().numpy()
        return _to_arrow(host[order], measured, listed[order], top_k.int().cpu().numpy())

    def _keep(
        self,
        rows: npt.NDArray[np.int64],
        host: npt.NDArray[np.void],
        device: torch.Tensor,
        listed: npt.NDArray[np.int64],
        top_k: torch.Tensor,
    ) -> None:
        self.clear()
        if not len(rows):
            return
        self._host, self._num_rows = [host[rows]], len(rows)
        self._device = [device[torch.from_numpy(rows).to(device.device)]]
        self._top_k_row = [np.flatnonzero(listed[rows] >= 0)]
        self._top_k = [top_k[torch.from_numpy(listed[rows][self._top_k_row[0]]).to(top_k.device)]]


def _last_of_each(host: npt.NDArray[np.void], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of `rows` that are the last of their (sequence, position), in that order."""
    order = rows[np.lexsort((rows, host["position"][rows], host["sequence"][rows]))]
    key = (host["sequence"][order].astype(np.int64) << 32) + host["position"][order]
    last = np.append(key[1:] != key[:-1], True) if len(order) else np.empty(0, np.bool_)
    kept: npt.NDArray[np.int64] = order[last]
    return kept


def _to_arrow(
    host: npt.NDArray[np.void],
    measured: npt.NDArray[np.float32],
    listed: npt.NDArray[np.int64],
    top_k: npt.NDArray[np.int32],
) -> pa.RecordBatch:
    columns = {name: pa.array(np.ascontiguousarray(host[name])) for name in _HOST.names or ()}
    columns["primary_token"] = pa.array(host["primary_token"].copy(), mask=~host["intervened"])
    for name, values in zip(_DEVICE, measured.T, strict=True):
        columns[name] = pa.array(values.astype(np.int32 if name.startswith("rank") else np.float32))
    has = listed >= 0
    offsets = np.concatenate(([0], np.cumsum(has * top_k.shape[1]))).astype(np.int32)
    values = pa.array(top_k[listed[has]].ravel())
    columns["top_k"] = pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~has))
    return pa.RecordBatch.from_pydict(columns)
