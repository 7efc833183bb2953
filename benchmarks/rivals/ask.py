"""What every contender is asked to make: cross-sampled responses, by its own means and with its own
noise.

The rule is the project's default: where the Jensen-Shannon divergence between the two truncated
distributions exceeds a threshold, the token comes from the intervention policy, as long as the
response has budget left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.sampling.distribution import Sampling


@dataclass(frozen=True)
class Ask:
    """primary, intervention: model folders. budget: interventions a response, None for no limit;
    threshold in nats.

    Every response is a continuation of a prompt of token ids, in order; it ends with one of
    stop_token_ids, which it holds, or after max_tokens.
    """

    primary: str
    intervention: str
    prompts: Sequence[list[int]]
    budget: int | None
    threshold: float
    sampling: Sampling
    max_tokens: int
    stop_token_ids: tuple[int, ...]


class Rival(Protocol):
    """A contender in a process of its own (a Ray actor): loads its models when it is made."""

    def ready(self) -> None:
        """Returns once everything is loaded and warm."""

    def respond(self, ask: Ask, seed: int) -> list[list[int]]:
        """The responses, token ids each, in the order of the prompts."""
        ...
