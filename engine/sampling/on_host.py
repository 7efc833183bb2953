"""Full distributions on the CPU: one pass makes log-probabilities, all else is read off them.

The trace keeps the log-probabilities and measures them while it waits for the twin.

Dimensions: as in `full`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from engine.arrays import Ints
from engine.sampling.distribution import Nuclei, Sampling, log_probabilities, measure, nuclei
from engine.sampling.full import FullDistributions, Reading, Wanted
from engine.sampling.passes import entropy, take_rows


class OnHost(FullDistributions):
    """The distributions of one step whose logits are in the host's memory.

    Args:
        logits: Logits [B, >= V] in float32.
        previous: The engine's last token of each row [B].
        vocab_size: V.
        sampling: How distributions are truncated.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        previous: Ints | torch.Tensor,
        vocab_size: int,
        sampling: Sampling,
    ) -> None:
        self._logits, self._vocab_size, self._sampling = logits, vocab_size, sampling
        self._previous = previous

    def previous(self) -> Ints:
        if isinstance(self._previous, torch.Tensor):
            return self._previous.numpy().astype(np.int64)
        return self._previous

    def choose(self, batch_rows: Ints) -> None:
        own = self._logits
        if len(batch_rows) < len(own):
            own = take_rows(own, batch_rows)
        self._log_p = log_probabilities(own[:, : self._vocab_size])

    def nuclei(self) -> Nuclei:
        return nuclei(self._log_p, self._sampling)

    def entropy(self) -> npt.NDArray[np.float32]:
        return entropy(self._log_p).numpy()

    def log_p(self, row: Ints, token: Ints) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._log_p.numpy()[row, token]
        return found

    def top(self, rows: Ints, count: int) -> Ints:
        return take_rows(self._log_p, rows).topk(count, -1).indices.numpy()

    def reading(self, token: Ints, count: int) -> Reading:
        numbers = measure(self._log_p, torch.from_numpy(token)[:, None])
        top = self._log_p.topk(min(count, self._log_p.shape[-1]), -1)
        return Reading(numbers.numpy(), top.indices.int().numpy(), top.values.numpy())

    def force(self, batch_rows: Ints, token: Ints, wanted: Wanted | None) -> torch.Tensor | None:
        self._logits.numpy()[batch_rows, token] = np.inf
        return self._log_p if wanted else None
