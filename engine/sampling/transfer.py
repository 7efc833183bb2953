"""Copies between a device and the host, the only ones of a step.

On CUDA they go through pinned memory, queued on the device's stream. The host waits once, for the
event behind a copy to it. Where there is no CUDA they are plain copies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch


class Transfer:
    """Carries int32 numbers one way or the other; a sampler has one."""

    def __init__(self) -> None:
        self._is_pinned = torch.cuda.is_available()
        if self._is_pinned:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._down = self._up = torch.empty(0, dtype=torch.int32)

    def to_host(self, numbers: torch.Tensor) -> npt.NDArray[np.int32]:
        """The numbers on the host, after everything that the device was given before."""
        if not self._is_pinned:
            return numbers.cpu().numpy()
        self._down = _with_room(self._down, numbers.numel())
        there = self._down[: numbers.numel()].view(numbers.shape)
        there.copy_(numbers, non_blocking=True)
        self._arrived.record()
        self._arrived.synchronize()
        return there.numpy().copy()

    def to_device(self, numbers: npt.NDArray[np.int32], like: torch.Tensor) -> torch.Tensor:
        """The numbers on the device of `like`; the host does not wait."""
        here = torch.from_numpy(numbers)
        there = like.new_empty(here.shape, dtype=torch.int32)
        if self._is_pinned:
            # The device may still read the last numbers: only if it has fallen a step behind.
            self._sent.synchronize()
            self._up = _with_room(self._up, here.numel())
            here = self._up[: here.numel()].view(here.shape).copy_(here)
        there.copy_(here, non_blocking=True)
        if self._is_pinned:
            self._sent.record()
        return there


def _with_room(buffer: torch.Tensor, size: int) -> torch.Tensor:
    """The buffer, or a pinned one of twice the size that is needed."""
    if len(buffer) >= size:
        return buffer
    return torch.empty(2 * size, dtype=torch.int32, pin_memory=True)
