"""Roofline: how long a decode step takes, by what it must read and what it must compute.

A step reads all weights once, and the KV cache of every sequence in it; it computes two operations
a weight and sequence. The slower of the two is the roof (Williams, Waterman, Patterson 2009). To it
comes what no roof knows: the host's work on a step, and on each of its sequences. Plain arithmetic;
which device has which figures is said in `devices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.core import POLICIES


@dataclass(frozen=True, slots=True)
class Device:
    """What one device attains: a GPU, or the cores of one engine's rank."""

    name: str
    bandwidth: float
    """Bytes a second that it reads."""
    flops: float
    """Operations a second in the precision of the weights; a multiply-add is two."""
    step_seconds: float
    """What every step takes beside reading and computing."""
    row_seconds: float
    """What each sequence adds to that."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What a step of one engine is on each of its devices."""

    weight_bytes: float
    kv_token_bytes: float
    """KV cache that one token of context takes."""
    token_flops: float
    """Operations that one token takes."""

    def divided(self, num_devices: int) -> EngineLoad:
        """The load on each of so many tensor-parallel devices."""
        return EngineLoad(
            self.weight_bytes / num_devices,
            self.kv_token_bytes / num_devices,
            self.token_flops / num_devices,
        )

    def decode_seconds(self, device: Device, rows: float, context: float) -> float:
        """The roof over a step of `rows` sequences of `context` tokens each."""
        num_bytes = self.weight_bytes + rows * context * self.kv_token_bytes
        return max(num_bytes / device.bandwidth, rows * self.token_flops / device.flops)

    def prefill_seconds(self, device: Device, num_tokens: float) -> float:
        """What computing so many tokens of prompts adds to the steps that they are a part of."""
        return num_tokens * self.token_flops / device.flops


@dataclass(frozen=True, slots=True)
class PairRoofline:
    """A pair of engines on devices of one kind."""

    loads: Mapping[str, EngineLoad]
    """Policy -> the load of its engine."""
    device: Device
    is_shared: bool
    """Whether both engines are on the same devices, which then carry both loads."""

    def step_seconds(
        self, rows: float, context: float, policies: Sequence[str] = POLICIES
    ) -> float:
        """A decode step.

        Args:
            rows: Sequences that each engine computes, above 0.
            context: Tokens that each of them attends to, on average.
            policies: Whose engines take the step at the same time.
        """
        roofs = [
            self.loads[policy].decode_seconds(self.device, rows, context) for policy in policies
        ]
        return self.device.step_seconds + rows * self.device.row_seconds + self._together(roofs)

    def prefill_seconds(self, num_tokens: float, policies: Sequence[str] = POLICIES) -> float:
        """What computing so many tokens of prompts takes the engines of these policies."""
        parts = [self.loads[policy].prefill_seconds(self.device, num_tokens) for policy in policies]
        return self._together(parts)

    def _together(self, seconds: Sequence[float]) -> float:
        return sum(seconds) if self.is_shared else max(seconds)
