"""LogitsReader: the full distributions of logits, on the host or on the device where these lie."""

from __future__ import annotations

import torch

from engine.arrays import Ints
from engine.sampling.distribution import Sampling
from engine.sampling.full import FullDistributions
from engine.sampling.on_device import OnDevice
from engine.sampling.on_host import OnHost
from engine.sampling.transfer import Transfer


class LogitsReader:
    """Reads the logits of one engine.

    Args:
        vocab_size: Token ids from this one on are padding.
        sampling: How distributions are truncated.
    """

    def __init__(self, vocab_size: int, sampling: Sampling) -> None:
        self._vocab_size, self._sampling = vocab_size, sampling
        self._transfer: Transfer | None = None

    def read(self, logits: torch.Tensor, previous: Ints | torch.Tensor) -> FullDistributions:
        """The distributions of one step.

        Args:
            logits: Logits [B, >= V] in float32.
            previous: The engine's last token of each row [B]; on a device, in int32, if the engine
                has them there only.
        """
        if logits.device.type == "cpu":
            return OnHost(logits, previous, self._vocab_size, self._sampling)
        self._transfer = self._transfer or Transfer()
        return OnDevice(logits, previous, self._vocab_size, self._sampling, self._transfer)
