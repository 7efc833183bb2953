"""Rival (a): two vLLM engines in one process, and for every token a request to the one and then to
the other.

In the style of the scripts that extrapolate between two policies: a window of 30 rows, of which one
that has ended makes room for the next; at each position a batch of requests with max_tokens=1 and
50 log-probabilities to the primary and then to the intervention policy, and a decision in NumPy.
The prefix cache is on, so that a request costs its last block and not its whole prefix.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from benchmarks.rivals import top_logprobs
from benchmarks.rivals.ask import Ask
from benchmarks.rivals.top_logprobs import TOP, Truncated, draw, generate, has_ended, js_divergence
from engine.arrays import Bools, Floats, Ints
from engine.core import budget_order

ENVIRONMENT = top_logprobs.ENVIRONMENT
WINDOW = 30


class PerToken:
    """See the module. Both engines are loaded when it is made."""

    block_size: int | None = top_logprobs.BLOCK_SIZE

    def __init__(self, primary: str, intervention: str, max_model_len: int) -> None:
        self._engines = [
            top_logprobs.load_engine(model, max_model_len, WINDOW, self.block_size)
            for model in (primary, intervention)
        ]

    def ready(self) -> None:
        """Loaded."""

    def respond(self, ask: Ask, seed: int) -> list[list[int]]:
        """One response a prompt."""
        top_logprobs.check(ask)
        for engine in self._engines:
            engine.reset_prefix_cache()
        noise = np.random.default_rng(seed)
        responses: list[list[int]] = [[] for _ in ask.prompts]
        left = np.full(len(responses), budget_order(ask.budget))
        waiting, window = deque(range(len(responses))), list[int]()
        while waiting or window:
            while waiting and len(window) < WINDOW:
                window.append(waiting.popleft())
            prefixes = [ask.prompts[row] + responses[row] for row in window]
            primary, other = (
                _next(engine, prefixes, ask.sampling.top_p) for engine in self._engines
            )
            tokens, intervened = decide(primary, other, left[window], ask.threshold, noise)
            left[window] -= intervened
            for row, token in zip(window, tokens.tolist(), strict=True):
                responses[row].append(token)
            window = [row for row in window if not has_ended(responses[row], ask)]
        return responses


class PerTokenByDefault(PerToken):
    """With blocks as large as vLLM makes them by itself, as such scripts leave it: short prefixes
    are never cached.
    """

    block_size = None


def _next(engine: Any, prefixes: list[list[int]], top_p: float) -> Truncated:
    """What an engine would sample the next token from."""
    from vllm import SamplingParams

    params = SamplingParams(
        max_tokens=1, temperature=0, logprobs=TOP, flat_logprobs=True, detokenize=False
    )
    return top_logprobs.truncated(
        [out.outputs[0].logprobs for out in generate(engine, prefixes, params)], top_p
    )


def decide(
    primary: Truncated, other: Truncated, left: Floats, threshold: float, noise: np.random.Generator
) -> tuple[Ints, Bools]:
    """The token of each row [R], and whether it comes from the intervention policy [R]. left [R]:
    budgets.
    """
    intervened = (js_divergence(primary, other) > threshold) & (left > 0)
    return np.where(intervened, draw(other, noise), draw(primary, noise)), intervened
