"""Full distributions on a device: two passes, one copy to the host and one back a step.

The first pass is queued as soon as the logits are known. It summarises every row of the batch. The
second pass measures what the trace wants and forces the tokens. It is queued behind the decision,
and the host does not wait for it. Nothing as large as the vocabulary is allocated or leaves the
device, but for the few rows whose summary does not settle their nucleus or that get a list.

Dimensions: as in `full`.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from engine.arrays import Ints
from engine.sampling import plain, summary
from engine.sampling.distribution import Nuclei, Sampling, log_probabilities, nuclei, stack
from engine.sampling.full import FullDistributions, Measured, Reading, Wanted
from engine.sampling.summary import Summary
from engine.sampling.transfer import Transfer


@cache
def load_passes() -> ModuleType:
    """The module of the two passes: Triton's kernels, or torch's operations where Triton is not."""
    try:
        from engine.sampling import kernels
    except ImportError:
        return plain
    return kernels


class OnDevice(FullDistributions):
    """The distributions of one step whose logits are on a device.

    Args:
        logits: Logits [B, >= V] in float32.
        previous: The engine's last token of each row [B], on the host or, in int32, on the device.
        vocab_size: V.
        sampling: How distributions are truncated.
        transfer: The sampler's copies to and from the device.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        previous: Ints | torch.Tensor,
        vocab_size: int,
        sampling: Sampling,
        transfer: Transfer,
    ) -> None:
        self._logits, self._vocab_size, self._sampling = logits, vocab_size, sampling
        self._transfer, self._previous = transfer, previous
        fed = previous if isinstance(previous, torch.Tensor) else None
        self._on_device = load_passes().summarise(logits, fed, vocab_size, sampling.temperature)

    def previous(self) -> Ints:
        self._summary = Summary(self._transfer.to_host(self._on_device))
        if isinstance(self._previous, torch.Tensor):
            return self._summary.previous
        return self._previous

    def choose(self, batch_rows: Ints) -> None:
        self._rows, self._summary = batch_rows, self._summary.take(batch_rows)

    def nuclei(self) -> Nuclei:
        is_settled, mine = self._summary.nuclei(self._sampling)
        if is_settled.all():
            return mine
        settled, rest = np.flatnonzero(is_settled), np.flatnonzero(~is_settled)
        others = nuclei(log_probabilities(self._logits_of(rest)), self._sampling)
        return stack(mine, others).take(np.argsort(np.concatenate((settled, rest))))

    def entropy(self) -> npt.NDArray[np.float32]:
        return self._summary.entropy

    def log_p(self, row: Ints, token: Ints) -> npt.NDArray[np.float32]:
        place = np.array((self._rows[row], token), np.int32)
        index = self._transfer.to_device(place, self._logits)
        logit = self._transfer.to_host(self._logits[index[0], index[1]].view(torch.int32))
        return logit.view(np.float32) - self._summary.best[row] - self._summary.log_mass[row]

    def top(self, rows: Ints, count: int) -> Ints:
        token = self._logits_of(rows).topk(count, -1).indices
        return self._transfer.to_host(token.int()).astype(np.int64)

    def reading(self, token: Ints, count: int) -> Reading:
        own = self._logits[:, : self._vocab_size]
        top = own.topk(min(count, own.shape[-1]), -1)
        best, log_mass = (
            self._on_device[:, column, None].view(torch.float32)
            for column in (summary.BEST, summary.LOG_MASS)
        )
        lists = torch.cat((top.indices.int(), (top.values - best - log_mass).view(torch.int32)), 1)
        plan = np.array((self._rows, token, token), np.int32).T
        there = self._transfer.to_device(plan.ravel(), self._logits)
        # It also forces the tokens, in logits that nobody samples from.
        numbers = load_passes().measure_and_force(
            self._logits, self._on_device, there, self._vocab_size
        )
        lists = lists.index_select(0, there.view(-1, 3)[:, 0])
        packed = self._transfer.to_host(torch.cat((numbers.view(torch.int32), lists), 1))
        width = top.indices.shape[1]
        found, tokens, log_p = np.split(packed, (5, 5 + width), 1)
        return Reading(
            found.view(np.float32)[:, [0, 1, 3]],
            tokens,
            np.ascontiguousarray(log_p).view(np.float32),
        )

    def force(self, batch_rows: Ints, token: Ints, wanted: Wanted | None) -> Measured | None:
        plan = np.full((len(batch_rows), 3), -1, np.int32)
        plan[:, 0], plan[:, 1] = batch_rows, token
        listed = np.empty(0, np.int32)
        if wanted:
            plan[: len(wanted.js), 2] = wanted.other_top1
            listed = batch_rows[wanted.listed].astype(np.int32)
        there = self._transfer.to_device(np.concatenate((plan.ravel(), listed)), self._logits)
        lists = None
        if wanted and len(listed):
            own = self._logits[:, : self._vocab_size].index_select(0, there[plan.size :])
            lists = own.topk(min(wanted.list_length, own.shape[-1]), -1).indices
        numbers = load_passes().measure_and_force(
            self._logits, self._on_device, there[: plan.size], self._vocab_size
        )
        return Measured(numbers[: len(wanted.js)], lists) if wanted else None

    def _logits_of(self, rows: Ints) -> torch.Tensor:
        """A copy of the logits of some chosen rows, without padding [I, V]."""
        index = self._transfer.to_device(self._rows[rows].astype(np.int32), self._logits)
        return self._logits[:, : self._vocab_size].index_select(0, index)
