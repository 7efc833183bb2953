"""Trace: one row per position that a sampler decided, kept as arrays until sequences finish.

No Python object is made per token. A step is only noted when it is decided, and measured while the
sampler waits for its twin. With a small vocabulary several steps are measured at once: a pass over
a thousand numbers takes almost as long as one over a hundred thousand. Of a position that was
decided twice (chunked prefill, preemption) the last row counts. Numbers that a device computed stay
on it until they are collected.

Dimensions: B rows of a step, V vocabulary, N rows of the trace, K ids of a top-k list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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

# Columns that the host knows; the others are the device's numbers (distribution.measure) and the
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
    """A step that is decided and not yet measured."""

    rows: Rows
    decisions: Decisions
    nucleus: Ints
    """Sizes of this side's nuclei [B]."""
    top1: Ints
    """This side's most probable tokens [B]."""
    other_top1: Ints
    """The twin's most probable tokens [B]."""
    log_p: torch.Tensor
    """Log-probabilities [B, V]."""


@dataclass(slots=True)
class _Waiting:
    """Steps that wait to be measured."""

    steps: list[_Step] = field(default_factory=list)
    num_log_p: int = 0
    """Numbers in their log-probabilities."""


@dataclass(slots=True)
class _Measured:
    """Rows that are measured, in blocks."""

    host: list[npt.NDArray[np.void]] = field(default_factory=list)
    """Columns of the host."""
    device: list[torch.Tensor] = field(default_factory=list)
    """Columns of the device."""
    top_k: list[torch.Tensor] = field(default_factory=list)
    """Top-k lists of some rows [., K]."""
    top_k_row: list[Ints] = field(default_factory=list)
    """Row of each list."""
    num_rows: int = 0


class _Block(NamedTuple):
    """All measured rows at once [N]."""

    host: npt.NDArray[np.void]
    device: torch.Tensor
    top_k: torch.Tensor
    """Top-k lists of some rows [., K]."""
    list_of_row: Ints
    """Index of each row's list in `top_k` [N]; -1 where none was recorded."""


class Trace:
    """Rows of the sequences that are under way.

    Args:
        record_threshold: Divergence in nats from which on a row has a top-k list.
        record_top_k: Tokens of such a list.
    """

    def __init__(self, record_threshold: float, record_top_k: int) -> None:
        self._record_threshold, self._record_top_k = record_threshold, record_top_k
        self._waiting, self._measured = _Waiting(), _Measured()

    def clear(self) -> None:
        """Forget everything."""
        self._waiting, self._measured = _Waiting(), _Measured()

    def append(
        self,
        rows: Rows,
        decisions: Decisions,
        mine: Nuclei,
        other_top1: Ints,
        log_p: torch.Tensor,
    ) -> None:
        """Add one step, none of whose arrays may be changed afterwards.

        Args:
            rows: The B rows that were decided.
            decisions: What was decided.
            mine: This side's nuclei.
            other_top1: The twin's most probable tokens [B].
            log_p: This side's log-probabilities [B, V].
        """
        waiting = self._waiting
        waiting.steps.append(_Step(rows, decisions, mine.size, mine.top1, other_top1, log_p))
        waiting.num_log_p += log_p.numel()

    def catch_up(self) -> None:
        """Measure the steps that wait, if they are worth a pass.

        To be called at every step, while there is nothing else to do.
        """
        if self._waiting.num_log_p >= BLOCK:
            self._measure()

    def _measure(self) -> None:
        steps, measured = self._waiting.steps, self._measured
        if not steps:
            return
        self._waiting = _Waiting()
        host = _host_rows(steps)
        log_p = torch.cat([step.log_p for step in steps]) if len(steps) > 1 else steps[0].log_p
        other_top1 = np.concatenate([step.other_top1 for step in steps])
        token = torch.from_numpy(np.stack((host["token"], other_top1), 1)).to(log_p.device)
        measured.device.append(measure(log_p, token))
        shifted = np.flatnonzero(
            np.concatenate([step.decisions.js for step in steps]) >= self._record_threshold
        )
        if len(shifted):
            k = min(self._record_top_k, log_p.shape[-1])
            lists = log_p[torch.from_numpy(shifted).to(log_p.device)].topk(k, -1).indices
            measured.top_k.append(lists)
            measured.top_k_row.append(shifted + measured.num_rows)
        measured.host.append(host)
        measured.num_rows += len(host)

    def collect(self, finished: Ints) -> pa.RecordBatch:
        """Take out the rows of finished sequences.

        Args:
            finished: Indices of the sequences in the phase.

        Returns:
            Their rows, ordered by (sequence, position).
        """
        self._measure()
        block = self._take_measured()
        is_finished = np.isin(block.host["sequence"], finished)
        self._measured = _select(block, np.flatnonzero(~is_finished))
        return _to_arrow(block, _last_of_each(block.host, np.flatnonzero(is_finished)))

    def _take_measured(self) -> _Block:
        measured, self._measured = self._measured, _Measured()
        host = np.concatenate([np.empty(0, _HOST), *measured.host])
        device = torch.cat(measured.device) if measured.device else torch.empty(0, len(_DEVICE))
        top_k = (
            torch.cat(measured.top_k)
            if measured.top_k
            else torch.empty(0, self._record_top_k, dtype=torch.int64)
        )
        list_of_row = np.full(len(host), -1, np.int64)
        rows_with_list = np.concatenate([np.empty(0, np.int64), *measured.top_k_row])
        list_of_row[rows_with_list] = np.arange(len(top_k))
        return _Block(host, device, top_k, list_of_row)


def _select(block: _Block, rows: Ints) -> _Measured:
    if not len(rows):
        return _Measured()
    list_of_row = block.list_of_row[rows]
    top_k_row = np.flatnonzero(list_of_row >= 0)
    list_index = torch.from_numpy(list_of_row[top_k_row]).to(block.top_k.device)
    return _Measured(
        host=[block.host[rows]],
        device=[block.device[torch.from_numpy(rows).to(block.device.device)]],
        top_k=[block.top_k[list_index]],
        top_k_row=[top_k_row],
        num_rows=len(rows),
    )


def _host_rows(steps: list[_Step]) -> npt.NDArray[np.void]:
    """The host's columns of the steps' rows."""
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
    """The rows that are the last of their (sequence, position), in the order of these."""
    order = rows[np.lexsort((rows, host["position"][rows], host["sequence"][rows]))]
    key = (host["sequence"][order].astype(np.int64) << 32) + host["position"][order]
    is_last = np.append(key[1:] != key[:-1], True) if len(order) else np.empty(0, np.bool_)
    last: Ints = order[is_last]
    return last


def _to_arrow(block: _Block, rows: Ints) -> pa.RecordBatch:
    host, list_of_row = block.host[rows], block.list_of_row[rows]
    numbers = block.device[torch.from_numpy(rows).to(block.device.device)].float().cpu().numpy()
    top_k = block.top_k.int().cpu().numpy()
    columns = {name: pa.array(np.ascontiguousarray(host[name])) for name in _HOST.names or ()}
    columns["primary_token"] = pa.array(host["primary_token"].copy(), mask=~host["intervened"])
    for name, values in zip(_DEVICE, numbers.T, strict=True):
        columns[name] = pa.array(values.astype(np.int32 if name.startswith("rank") else np.float32))
    has_list = list_of_row >= 0
    offsets = pa.array(np.concatenate(([0], np.cumsum(has_list * top_k.shape[1]))).astype(np.int32))
    values = pa.array(top_k[list_of_row[has_list]].ravel())
    columns["top_k"] = pa.ListArray.from_arrays(offsets, values, mask=pa.array(~has_list))
    return pa.RecordBatch.from_pydict(columns)
