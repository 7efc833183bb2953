"""Trace: one row per position that a sampler decided, kept as arrays until sequences finish.

No Python object is made per token. A step is only noted when it is decided. On the CPU it is
measured while the sampler waits for its twin. With a small vocabulary several steps are measured at
once: a pass over a thousand numbers takes almost as long as one over a hundred thousand. A device
has measured its steps already, and its numbers stay there until rows are collected. Of a position
that was decided twice (chunked prefill, preemption) the last row counts.

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
from engine.sampling.full import Measured, Wanted
from engine.sampling.intervention import Decisions
from engine.sampling.passes import BLOCK

# Columns that are known when a step is decided; the others are measured (distribution.measure).
_DECIDED = np.dtype(
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
_NUMBERS = ("entropy", "logp", "logp_of_other_top1", "rank", "rank_of_other_top1")


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
    full: torch.Tensor | Measured
    """Log-probabilities [B, V], or what a device has measured."""


@dataclass(slots=True)
class _Waiting:
    """Steps that wait to be measured, or to be put in order."""

    steps: list[_Step] = field(default_factory=list)
    size: int = 0
    """Numbers in their log-probabilities or measurements."""


@dataclass(slots=True)
class _Measured:
    """Rows that were measured since the last collection, in blocks."""

    decided: list[npt.NDArray[np.void]] = field(default_factory=list)
    numbers: list[torch.Tensor] = field(default_factory=list)
    lists: list[torch.Tensor] = field(default_factory=list)
    """Top-k lists of some rows [., K]."""
    list_row: list[Ints] = field(default_factory=list)
    """Row of each list."""
    num_rows: int = 0


class _Block(NamedTuple):
    """Rows on the host [N]."""

    decided: npt.NDArray[np.void]
    numbers: npt.NDArray[np.float32]
    lists: npt.NDArray[np.int32]
    """Top-k lists of some rows [., K]."""
    list_of_row: Ints
    """Index of each row's list in `lists` [N]; -1 where none was recorded."""


class Trace:
    """Rows of the sequences that are under way.

    Args:
        record_threshold: Divergence in nats from which on a row has a top-k list.
        record_top_k: Tokens of such a list.
    """

    def __init__(self, record_threshold: float, record_top_k: int) -> None:
        self._record_threshold, self._record_top_k = record_threshold, record_top_k
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._waiting, self._measured, self._kept = _Waiting(), _Measured(), _no_rows()

    def wanted(self, decisions: Decisions, other_top1: Ints) -> Wanted:
        """What is to be measured of a step of B rows.

        Args:
            decisions: What was decided.
            other_top1: The twin's most probable tokens [B].
        """
        return Wanted(other_top1, decisions.js, self._record_threshold, self._record_top_k)

    def append(
        self,
        rows: Rows,
        decisions: Decisions,
        mine: Nuclei,
        other_top1: Ints,
        full: torch.Tensor | Measured,
    ) -> None:
        """Add one step, none of whose arrays may be changed afterwards.

        Args:
            rows: The B rows that were decided.
            decisions: What was decided.
            mine: This side's nuclei.
            other_top1: The twin's most probable tokens [B].
            full: This side's log-probabilities [B, V] on the CPU, or what a device has measured of
                them, as it was `wanted`.
        """
        waiting = self._waiting
        waiting.steps.append(_Step(rows, decisions, mine.size, mine.top1, other_top1, full))
        waiting.size += (full.numbers if isinstance(full, Measured) else full).numel()

    def catch_up(self) -> None:
        """Measure the steps that wait, if they are worth a pass.

        To be called at every step, while there is nothing else to do.
        """
        if self._waiting.size >= BLOCK:
            self._measure()

    def _measure(self) -> None:
        steps, measured = self._waiting.steps, self._measured
        if not steps:
            return
        self._waiting = _Waiting()
        decided = _decided_rows(steps)
        js = np.concatenate([step.decisions.js for step in steps])
        listed = np.flatnonzero(js >= self._record_threshold)
        on_device = [step.full for step in steps if isinstance(step.full, Measured)]
        log_p = [step.full for step in steps if isinstance(step.full, torch.Tensor)]
        if log_p:
            other_top1 = np.concatenate([step.other_top1 for step in steps])
            token = np.stack((decided["token"], other_top1), 1)
            on_device.append(self._measure_now(log_p, token, listed))
        measured.numbers += [found.numbers for found in on_device]
        measured.lists += [found.lists for found in on_device if found.lists is not None]
        measured.list_row.append(listed + measured.num_rows)
        measured.decided.append(decided)
        measured.num_rows += len(decided)

    def _measure_now(self, steps: list[torch.Tensor], token: Ints, listed: Ints) -> Measured:
        """Measure log-probabilities on the CPU."""
        log_p = torch.cat(steps) if len(steps) > 1 else steps[0]
        numbers = measure(log_p, torch.from_numpy(token))
        if not len(listed):
            return Measured(numbers, None)
        count = min(self._record_top_k, log_p.shape[-1])
        return Measured(numbers, log_p[torch.from_numpy(listed)].topk(count, -1).indices)

    def collect(self, finished: Ints) -> pa.RecordBatch:
        """Take out the rows of finished sequences.

        Args:
            finished: Indices of the sequences in the phase.

        Returns:
            Their rows, ordered by (sequence, position).
        """
        self._measure()
        block = _join(self._kept, _bring(self._measured))
        self._measured = _Measured()
        is_finished = np.isin(block.decided["sequence"], finished)
        self._kept = _select(block, np.flatnonzero(~is_finished))
        return _to_arrow(block, _last_of_each(block.decided, np.flatnonzero(is_finished)))


def _no_rows() -> _Block:
    return _Block(
        np.empty(0, _DECIDED),
        np.empty((0, len(_NUMBERS)), np.float32),
        np.empty((0, 0), np.int32),
        np.empty(0, np.int64),
    )


def _bring(measured: _Measured) -> _Block:
    """The rows on the host; their numbers come in one copy, their lists in another."""
    block = _no_rows()
    if not measured.num_rows:
        return block
    list_of_row = np.full(measured.num_rows, -1, np.int64)
    list_row = np.concatenate(measured.list_row)
    list_of_row[list_row] = np.arange(len(list_row))
    lists = block.lists
    if measured.lists:
        lists = torch.cat(measured.lists).int().cpu().numpy()
    numbers = torch.cat(measured.numbers).cpu().numpy()
    return _Block(np.concatenate(measured.decided), numbers, lists, list_of_row)


def _join(first: _Block, second: _Block) -> _Block:
    """The rows of one block, then those of the other."""
    lists = [block.lists for block in (first, second) if len(block.lists)]
    has_list = second.list_of_row >= 0
    return _Block(
        np.concatenate((first.decided, second.decided)),
        np.concatenate((first.numbers, second.numbers)),
        np.concatenate(lists) if lists else first.lists,
        np.concatenate((first.list_of_row, second.list_of_row + len(first.lists) * has_list)),
    )


def _select(block: _Block, rows: Ints) -> _Block:
    """Some rows of a block."""
    list_of_row = block.list_of_row[rows]
    has_list = list_of_row >= 0
    lists = block.lists[list_of_row[has_list]]
    list_of_row[has_list] = np.arange(len(lists))
    return _Block(block.decided[rows], block.numbers[rows], lists, list_of_row)


def _decided_rows(steps: list[_Step]) -> npt.NDArray[np.void]:
    """The columns of the steps' rows that are known already."""
    decided = np.empty(sum(len(step.top1) for step in steps), _DECIDED)
    for name in ("sequence", "position"):
        decided[name] = np.concatenate([getattr(step.rows, name) for step in steps])
    for name in ("token", "intervened", "effective", "js"):
        decided[name] = np.concatenate([getattr(step.decisions, name) for step in steps])
    decided["primary_token"] = np.concatenate([step.decisions.primary for step in steps])
    for name in ("nucleus", "top1"):
        decided[name] = np.concatenate([getattr(step, name) for step in steps])
    return decided


def _last_of_each(decided: npt.NDArray[np.void], rows: Ints) -> Ints:
    """The rows that are the last of their (sequence, position), in the order of these."""
    order = rows[np.lexsort((rows, decided["position"][rows], decided["sequence"][rows]))]
    key = (decided["sequence"][order].astype(np.int64) << 32) + decided["position"][order]
    is_last = np.append(key[1:] != key[:-1], True) if len(order) else np.empty(0, np.bool_)
    last: Ints = order[is_last]
    return last


def _to_arrow(block: _Block, rows: Ints) -> pa.RecordBatch:
    decided, list_of_row, lists = block.decided[rows], block.list_of_row[rows], block.lists
    columns = {name: pa.array(np.ascontiguousarray(decided[name])) for name in _DECIDED.names or ()}
    columns["primary_token"] = pa.array(
        decided["primary_token"].copy(), mask=~decided["intervened"]
    )
    for name, values in zip(_NUMBERS, block.numbers[rows].T, strict=True):
        columns[name] = pa.array(values.astype(np.int32 if name.startswith("rank") else np.float32))
    has_list = list_of_row >= 0
    offsets = pa.array(np.concatenate(([0], np.cumsum(has_list * lists.shape[1]))).astype(np.int32))
    values = pa.array(lists[list_of_row[has_list]].ravel())
    columns["top_k"] = pa.ListArray.from_arrays(offsets, values, mask=pa.array(~has_list))
    return pa.RecordBatch.from_pydict(columns)
