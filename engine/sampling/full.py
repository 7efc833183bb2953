"""Full distributions: what a sampler asks of one step's logits, wherever the engine has them.

The sampler is the same on a CPU and on a device. What differs is behind this interface: `on_host`
takes passes of torch and NumPy, `on_device` two kernels, one copy to the host and one back.

Dimensions: B rows of an engine's batch, R of them that are decided, Q numbers, I rows with lists,
V vocabulary, K ids of a list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.arrays import Floats, Ints
from engine.sampling.distribution import Nuclei


class Wanted(NamedTuple):
    """What a trace wants to have measured of the R decided rows."""

    other_top1: Ints
    """The twin's most probable tokens [R]."""
    js: Floats
    """Divergence of each row in nats [R]."""
    threshold: float
    """Divergence from which on a row has a list of its most probable tokens."""
    list_length: int
    """K, unless V is less."""

    @property
    def listed(self) -> Ints:
        """The rows that have a list [I]."""
        return np.flatnonzero(self.js >= self.threshold)


class Measured(NamedTuple):
    """What a device has measured of R rows. The numbers stay there until they are collected."""

    numbers: torch.Tensor
    """As of `distribution.measure` with the decided token and the twin's best, [R, 5]."""
    lists: torch.Tensor | None
    """The most probable tokens of the listed rows, best first [I, K]; None without such rows."""


class Reading(NamedTuple):
    """What was read of R rows, on the host."""

    numbers: npt.NDArray[np.float32]
    """As of `distribution.measure` with one token: entropy, log-probability and rank [R, 3]."""
    top: npt.NDArray[np.int32]
    """The most probable tokens of each row, best first [R, K]."""
    top_log_p: npt.NDArray[np.float32]
    """Their log-probabilities in nats at temperature 1 [R, K]."""


class FullDistributions(ABC):
    """The distributions of one step, over the logits of an engine's batch of B rows.

    `previous` is asked for first. Then `choose` says which rows are decided. All that is asked for
    afterwards is of these R rows; a row is named by its index among them.
    """

    @abstractmethod
    def previous(self) -> Ints:
        """The engine's last token of each row of the batch [B]."""

    @abstractmethod
    def choose(self, batch_rows: Ints) -> None:
        """Choose the rows that are decided, by their indices in the batch [R]."""

    @abstractmethod
    def nuclei(self) -> Nuclei:
        """The nuclei of the chosen rows.

        Raises:
            FloatingPointError: A row is not a distribution: its logits hold NaN, +inf or only -inf.
        """

    @abstractmethod
    def entropy(self) -> npt.NDArray[np.float32]:
        """Entropies in nats at temperature 1 [R]."""

    @abstractmethod
    def log_p(self, row: Ints, token: Ints) -> npt.NDArray[np.float32]:
        """Log-probabilities in nats at temperature 1 of some tokens [Q] of some rows [Q]."""

    @abstractmethod
    def top(self, rows: Ints, count: int) -> Ints:
        """The `count` most probable tokens of some rows [I, count], best first."""

    @abstractmethod
    def reading(self, token: Ints, count: int) -> Reading:
        """Measure the chosen rows where nothing is decided; the last thing that is asked for.

        Args:
            token: A token of each row [R].
            count: K, unless V is less.
        """

    @abstractmethod
    def force(
        self, batch_rows: Ints, token: Ints, wanted: Wanted | None
    ) -> torch.Tensor | Measured | None:
        """Make tokens the greedy choice of rows of the batch; the last thing that is asked for.

        One infinite logit, not a whole row, is written.

        Args:
            batch_rows: Indices in the batch of the rows: first the R chosen ones, then others.
            token: The token of each.
            wanted: What is to be measured of the chosen rows; None if nothing is.

        Returns:
            What `Trace.append` takes: the log-probabilities [R, V], for later, or what has been
            measured; None if nothing is wanted.
        """
