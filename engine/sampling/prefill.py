"""PrefillMeasurer: the distributions at the positions of texts that are there already.

An engine that reads a text as a prompt computes the hidden state of every token, and from that of a
token follow the logits of the next one. So one forward pass measures a whole response. Each engine
measures at its own pace and keeps, for each position, the nucleus, some numbers and the most
probable tokens. Whoever has these of both engines has all that a table of tokens holds.

Dimensions: N targets of a phase, B requests of a step, R rows of it that are measured, K tokens of
a list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from engine.arrays import Ints
from engine.sampling.distribution import Nuclei, ranges
from engine.sampling.full import Reading
from engine.sampling.reader import LogitsReader
from engine.sampling.sampler import SamplerConfig

LOGITS_AT_ONCE = 2**22
"""Numbers in the logits that exist at once, unless the rows of a decode step have more."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The tokens of a phase at which both policies are measured, ordered by (sequence, index)."""

    sequence: Ints
    """Index of each token's sequence in the phase [N]."""
    index: Ints
    """Index of the token before it in the text of the sequence, prompt included [N]."""
    token: Ints
    """The token [N]; the text may hold another one there."""
    list_length: int
    """K, unless the vocabulary is smaller."""

    @property
    def key(self) -> Ints:
        """(sequence << 32) + index of each target [N], ascending."""
        return (self.sequence << 32) + self.index


_NONE = np.empty(0, np.int64)
NO_TARGETS = Targets(_NONE, _NONE, _NONE, list_length=1)
"""Of a phase that measures nothing."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What an engine computes of each request in one step.

    Every array is [B].
    """

    sequence: Ints
    """Index of its sequence in the phase."""
    index: Ints
    """Index of the first token that the step computes, in the text of the sequence."""
    count: Ints
    """Number of these tokens."""
    row: Ints
    """Row of the first of them in the step's hidden states."""


class PrefillMeasurer:
    """Measures what one engine computes of prompts.

    Args:
        config: The settings of the run.
        num_seqs: Sequences that the engine has in flight: rows of logits that it has room for.
        keeps: Whether this rank keeps the rows; of the ranks of an engine one does.
    """

    def __init__(self, config: SamplerConfig, num_seqs: int, keeps: bool) -> None:
        self._reader = LogitsReader(config.vocab_size, config.sampling)
        self._rows_at_once = max(num_seqs, LOGITS_AT_ONCE // config.vocab_size)
        self._keeps = keeps
        self.begin(NO_TARGETS)

    @property
    def is_idle(self) -> bool:
        """Whether the phase has nothing to measure."""
        return not len(self._key)

    def begin(self, targets: Targets) -> None:
        """Begin a phase and forget the last one."""
        self._targets, self._key = targets, targets.key
        self._measured: list[pa.RecordBatch] = []

    def step(
        self,
        computed: Computed,
        hidden: torch.Tensor,
        compute_logits: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """Measure the targets that a step of the engine has reached.

        Args:
            computed: What the step has computed.
            hidden: Its hidden states, one row per token.
            compute_logits: Logits [R, >= V] from R of these rows; every rank takes part.

        Raises:
            FloatingPointError: The logits hold NaN or infinity.
        """
        key = (computed.sequence << 32) + computed.index
        first, stop = np.searchsorted(self._key, (key, key + computed.count))
        target = ranges(first, stop - first)
        row = self._targets.index[target] + np.repeat(computed.row - computed.index, stop - first)
        for begin in range(0, len(target), self._rows_at_once):
            some = slice(begin, begin + self._rows_at_once)
            chosen = torch.from_numpy(row[some]).to(hidden.device)
            logits = compute_logits(hidden.index_select(0, chosen))
            if self._keeps:
                self._measured.append(self._measure(logits.float(), target[some]))

    def take(self, sequence: Ints) -> pa.Table:
        """Take out the rows of some sequences, see `measured_rows`.

        Args:
            sequence: Indices of sequences that the engine has ended.

        Returns:
            Their rows, ordered by target; one each, although the engine computes the prompt of a
            request again that it has preempted.
        """
        rows = pa.Table.from_batches(self._measured or [_no_rows(self._targets)])
        is_taken = np.isin(self._targets.sequence[rows["target"].to_numpy()], sequence)
        self._measured = rows.filter(pa.array(~is_taken)).combine_chunks().to_batches()
        taken = np.flatnonzero(is_taken)
        _, index = np.unique(rows["target"].to_numpy()[taken], return_index=True)
        return rows.take(pa.array(taken[index])).combine_chunks()

    def _measure(self, logits: torch.Tensor, target: Ints) -> pa.RecordBatch:
        full = self._reader.read(logits, np.empty(0, np.int64))
        full.previous()
        full.choose(np.arange(len(target)))
        mine = full.nuclei()
        token = self._targets.token[target]
        return measured_rows(target, mine, full.reading(token, self._targets.list_length))


def measured_rows(target: Ints, mine: Nuclei, reading: Reading) -> pa.RecordBatch:
    """Rows of what one policy has measured.

    Args:
        target: Number of each row's target [R].
        mine: The policy's nuclei of the rows.
        reading: The policy's numbers and lists.
    """
    entropy, log_p, rank = reading.numbers.T
    offsets = pa.array(np.append(mine.start, len(mine.token)).astype(np.int32))
    width = reading.top.shape[1]
    columns = {
        "target": pa.array(target),
        "entropy": pa.array(np.ascontiguousarray(entropy)),
        "logp": pa.array(np.ascontiguousarray(log_p)),
        "rank": pa.array(rank.astype(np.int32)),
        "nucleus_token": pa.ListArray.from_arrays(offsets, pa.array(mine.token.astype(np.int32))),
        "nucleus_p": pa.ListArray.from_arrays(offsets, pa.array(mine.p)),
        "top": pa.FixedSizeListArray.from_arrays(pa.array(reading.top.ravel()), width),
        "top_logp": pa.FixedSizeListArray.from_arrays(pa.array(reading.top_log_p.ravel()), width),
    }
    return pa.RecordBatch.from_pydict(columns)


def _no_rows(targets: Targets) -> pa.RecordBatch:
    lists = np.empty((0, targets.list_length))
    reading = Reading(
        np.empty((0, 3), np.float32), lists.astype(np.int32), lists.astype(np.float32)
    )
    return measured_rows(_NONE, Nuclei(_NONE, _NONE, np.empty(0)), reading)
