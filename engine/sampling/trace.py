"""Trace: what one sampler saw at each position, kept as arrays until sequences finish. No Python
object a token.

A step is only taken down when it is decided. It is measured when there is time, while the twin is
waited for, and with a small vocabulary several steps at once: a pass over a thousand numbers takes
almost as long as one over a hundred thousand. A position that was decided twice (chunked prefill,
preemption) is there twice; the last one counts. Numbers that were computed on a device stay on it
until they are collected.

Dimensions: B rows of a step, V vocabulary, N rows of the trace, K ids of a top-k list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from engine.arrays import Ints
from engine.sampling.distribution import Nuclei, measure
from engine.sampling.exchange import Rows
from engine.sampling.intervention import Decisions
from engine.sampling.passes import BLOCK

# What the host knows of a row; the rest are the device's numbers (distribution.measure) and the
# top-k lists.
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


class _Step(NamedTuple):
    """What was decided, and what it is to be measured on: sizes of the nuclei [B], most probable
    tokens of this side and of its twin [B], log-probabilities [B, V].
    """

    rows: Rows
    decisions: Decisions
    nucleus: Ints
    top1: Ints
    other_top1: Ints
    log_p: torch.Tensor


class Trace:
    """Rows of the sequences that are under way."""

    def __init__(self, record_threshold: float, record_top_k: int) -> None:
        self._record_threshold, self._record_top_k = record_threshold, record_top_k
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._steps: list[_Step] = []
        self._num_waiting = 0  # numbers of the steps' log-probabilities
        self._host: list[npt.NDArray[np.void]] = []
        self._device: list[torch.Tensor] = []
        self._top_k: list[torch.Tensor] = []
        self._top_k_row: list[Ints] = []
        self._num_rows = 0

    def append(
        self,
        rows: Rows,
        decisions: Decisions,
        mine: Nuclei,
        other_top1: Ints,
        log_p: torch.Tensor,
    ) -> None:
        """Add one step: B rows, the twin's most probable tokens [B] and this side's
        log-probabilities [B, V].

        Nothing of it may be changed afterwards.
        """
        self._steps.append(_Step(rows, decisions, mine.size, mine.top1, other_top1, log_p))
        self._num_waiting += log_p.numel()

    def catch_up(self) -> None:
        """Measure the steps that wait, once they are worth a pass. To be called at every step,
        where there is time.
        """
        if self._num_waiting >= BLOCK:
            self._measure()

    def _measure(self) -> None:
        if not self._steps:
            return
        steps, self._steps, self._num_waiting = self._steps, [], 0
        host = _host_rows(steps)
        log_p = torch.cat([step.log_p for step in steps]) if len(steps) > 1 else steps[0].log_p
        other_top1 = np.concatenate([step.other_top1 for step in steps])
        token = torch.from_numpy(np.stack((host["token"], other_top1), 1)).to(log_p.device)
        self._device.append(measure(log_p, token))
        shifted = np.flatnonzero(
            np.concatenate([step.decisions.js for step in steps]) >= self._record_threshold
        )
        if len(shifted):
            k = min(self._record_top_k, log_p.shape[-1])
            self._top_k.append(
                log_p[torch.from_numpy(shifted).to(log_p.device)].topk(k, -1).indices
            )
            self._top_k_row.append(shifted + self._num_rows)
        self._host.append(host)
        self._num_rows += len(host)

    def collect(self, finished: Ints) -> pa.RecordBatch:
        """Take out the rows of the sequences `finished`, ordered by (sequence, position)."""
        self._measure()
        host = np.concatenate([np.empty(0, _HOST), *self._host])
        device = torch.cat(self._device) if self._device else torch.empty(0, len(_DEVICE))
        # Trace row -> row of the top-k block, -1 where none was recorded.
        listed = np.full(len(host), -1, np.int64)
        listed[np.concatenate([np.empty(0, np.int64), *self._top_k_row])] = np.arange(
            sum(map(len, self._top_k))
        )
        top_k = (
            torch.cat(self._top_k)
            if self._top_k
            else torch.empty(0, self._record_top_k, dtype=torch.int64)
        )
        gone = np.isin(host["sequence"], finished)
        self._keep(np.flatnonzero(~gone), host, device, listed, top_k)
        order = _last_of_each(host, np.flatnonzero(gone))
        measured = device[torch.from_numpy(order).to(device.device)].float().cpu().numpy()
        return _to_arrow(host[order], measured, listed[order], top_k.int().cpu().numpy())

    def _keep(
        self,
        rows: Ints,
        host: npt.NDArray[np.void],
        device: torch.Tensor,
        listed: Ints,
        top_k: torch.Tensor,
    ) -> None:
        self.clear()
        if not len(rows):
            return
        self._host, self._num_rows = [host[rows]], len(rows)
        self._device = [device[torch.from_numpy(rows).to(device.device)]]
        self._top_k_row = [np.flatnonzero(listed[rows] >= 0)]
        self._top_k = [top_k[torch.from_numpy(listed[rows][self._top_k_row[0]]).to(top_k.device)]]


def _host_rows(steps: list[_Step]) -> npt.NDArray[np.void]:
    """What the host knows of the steps' rows."""
    host = np.empty(sum(len(step.top1) for step in steps), _HOST)
    for name in ("sequence", "position"):
        host[name] = np.concatenate([getattr(step.rows, name) for step in steps])
    for name in ("token", "intervened", "effective", "js"):
        host[name] = np.concatenate([getattr(step.decisions, name) for step in steps])
    host["primary_token"] = np.concatenate([step.decisions.primary for step in steps])
    for name in ("nucleus", "top1"):
        host[name] = np.concatenate([getattr(step, name) for step in steps])
    return host


def _last_of_each(host: npt.NDArray[np.void], rows: Ints) -> Ints:
    """Those of `rows` that are the last of their (sequence, position), in that order."""
    order = rows[np.lexsort((rows, host["position"][rows], host["sequence"][rows]))]
    key = (host["sequence"][order].astype(np.int64) << 32) + host["position"][order]
    last = np.append(key[1:] != key[:-1], True) if len(order) else np.empty(0, np.bool_)
    kept: Ints = order[last]
    return kept


def _to_arrow(
    host: npt.NDArray[np.void],
    measured: npt.NDArray[np.float32],
    listed: Ints,
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
