"""Rival (b): responses are generated to the end, scored by the other model, and regenerated after
each replaced token.

In the style of the scripts that resample: the primary generates a batch of responses to their ends;
the intervention policy scores each of them, one prompt at a time, by `prompt_logprobs`; the first
position that shifts, after the last one that was replaced, gets a token of the intervention policy,
and the primary goes on from there. What a round leaves is the response of its budget, so one pass
gives a whole curve, for budget x length tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.rivals import top_logprobs
from benchmarks.rivals.ask import Ask
from benchmarks.rivals.top_logprobs import (
    TOP,
    Truncated,
    draw,
    generate,
    has_ended,
    js_divergence,
    truncated,
)

ENVIRONMENT = top_logprobs.ENVIRONMENT
_BATCH = 64
Responses = list[list[int]]


@dataclass
class _Row:
    """A response; the primary's log-probabilities from `new` on, where it went on last; is_final:
    nothing shifts.
    """

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    new: int = 0
    flat: Any = None
    is_final: bool = False


class Regenerate:
    """See the module. Both engines are loaded when it is made."""

    def __init__(self, primary: str, intervention: str, max_model_len: int) -> None:
        self._primary = top_logprobs.load_engine(primary, max_model_len, _BATCH)
        # A place for the token that vLLM generates after what it scores.
        self._other = top_logprobs.load_engine(intervention, max_model_len + 1, 1)

    def ready(self) -> None:
        """Loaded."""

    def respond(self, ask: Ask, seed: int) -> Responses:
        """One response a prompt."""
        *_, last = self._rounds(ask, seed)
        return last

    def curve(self, ask: Ask, seed: int) -> dict[int, Responses]:
        """Budget -> responses, for every budget from 0 to the one asked for."""
        assert ask.budget is not None, "a curve has a last budget"
        found = dict(enumerate(self._rounds(ask, seed)))
        last = found[len(found) - 1]
        return {budget: found.get(budget, last) for budget in range(ask.budget + 1)}

    def _rounds(self, ask: Ask, seed: int) -> Iterator[Responses]:
        """The responses with budget 0, 1, ... until it is spent or nothing shifts any more."""
        import torch

        top_logprobs.check(ask)
        torch.manual_seed(seed)  # the engine's: a generator a request would cost it time
        for engine in (self._primary, self._other):
            engine.reset_prefix_cache()
        noise = np.random.default_rng(seed)
        rows = [_Row(prompt) for prompt in ask.prompts]
        self._go_on(rows, ask)
        yield [list(row.tokens) for row in rows]
        num_rounds = 0
        while num_rounds != ask.budget and (left := [row for row in rows if not row.is_final]):
            for row in left:
                self._replace(row, ask, noise)
            self._go_on([row for row in left if not row.is_final], ask)
            num_rounds += 1
            yield [list(row.tokens) for row in rows]

    def _go_on(self, rows: list[_Row], ask: Ask) -> None:
        """Let the primary generate to the end."""
        from vllm import SamplingParams

        for row in rows:
            row.new, row.is_final = len(row.tokens), has_ended(row.tokens, ask)
        rows = [row for row in rows if not row.is_final]
        params = [
            SamplingParams(
                max_tokens=ask.max_tokens - row.new,
                top_p=ask.sampling.top_p,
                logprobs=TOP,
                flat_logprobs=True,
                stop_token_ids=list(ask.stop_token_ids),
                ignore_eos=True,  # the stop tokens are both policies'
                detokenize=False,
            )
            for row in rows
        ]
        made = generate(self._primary, [row.prompt + row.tokens for row in rows], params)
        for row, out in zip(rows, made, strict=True):
            row.tokens, row.flat = (
                row.tokens + list(out.outputs[0].token_ids),
                out.outputs[0].logprobs,
            )

    def _replace(self, row: _Row, ask: Ask, noise: np.random.Generator) -> None:
        """Put a token of the intervention policy at the first position that shifts, and drop what
        follows it.
        """
        other = self._score(row, ask.sampling.top_p)
        shifts = np.flatnonzero(
            js_divergence(truncated([row.flat], ask.sampling.top_p), other) > ask.threshold
        )
        row.is_final = not len(shifts)
        if len(shifts):
            first = shifts[:1]
            token = draw(replace(other, token=other.token[first], p=other.p[first]), noise)
            row.tokens[row.new + first[0] :] = token.tolist()

    def _score(self, row: _Row, top_p: float) -> Truncated:
        """The intervention policy where the primary went on last."""
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=TOP, flat_logprobs=True, detokenize=False
        )
        flat = generate(self._other, [row.prompt + row.tokens], params)[0].prompt_logprobs
        return truncated(
            [flat], top_p, skip=len(row.prompt) + row.new - 1
        )  # the first token of a prompt has none
