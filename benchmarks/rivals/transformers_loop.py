"""Rival (c): two transformers models with KV caches, read and decided step by step for a whole
batch at a time.

In the style of a script that is written in an afternoon without a serving engine: a batch of 64
prompts is padded on the left; at each step both models read the last token of every row, and
everything from the logits to the token is batched PyTorch. A batch is finished before the next one
begins. Rows that have ended leave it when they are half of it: each time costs a copy of the
caches, and each row that stays costs its share of the forward passes (on two cores and the embedded
pair: a third less time than with rows that stay to the end). PyTorch gets one core or all that
there are, whichever `ready` finds to be faster.

Dimensions: B rows, V vocabulary, T tokens read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.rivals.ask import Ask
from engine.sampling.distribution import Sampling

ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
}
_NO_LIMIT = 2**31
_NUM_TRIED = 16  # steps for each choice of threads


class TransformersLoop:
    """See the module. Both models are loaded when it is made. batch: B."""

    def __init__(
        self, primary: str, intervention: str, max_model_len: int, batch: int = 64
    ) -> None:
        from transformers import AutoModelForCausalLM

        self._folders, self._max_model_len, self._batch = (
            (primary, intervention),
            max_model_len,
            batch,
        )
        self._models = [
            AutoModelForCausalLM.from_pretrained(name, dtype="auto").eval()
            for name in self._folders
        ]

    def ready(self) -> None:
        """Loaded and warm; chooses how many threads a model gets."""
        choices = sorted({1, len(os.sched_getaffinity(0))})
        torch.set_num_threads(min(choices, key=self._seconds))

    def _seconds(self, num_threads: int) -> float:
        """How long a few steps take; the first ones, which are slow, apart."""
        torch.set_num_threads(num_threads)
        ask = Ask(
            *self._folders, [[1, 2]] * self._batch, None, 0.1, Sampling(1.0, 0.7), _NUM_TRIED, ()
        )
        self.respond(ask, seed=0)
        began = time.perf_counter()
        self.respond(ask, seed=0)
        return time.perf_counter() - began

    @torch.inference_mode()
    def respond(self, ask: Ask, seed: int) -> list[list[int]]:
        """One response a prompt, batch after batch."""
        assert (ask.primary, ask.intervention) == self._folders, (
            "these are not the models that were loaded"
        )
        assert max(map(len, ask.prompts)) + ask.max_tokens <= self._max_model_len, (
            "longer than the context"
        )
        noise = torch.Generator().manual_seed(seed)
        starts = range(0, len(ask.prompts), self._batch)
        batches = [ask.prompts[start : start + self._batch] for start in starts]
        return [response for prompts in batches for response in self._finish(prompts, ask, noise)]

    def _finish(
        self, prompts: Sequence[list[int]], ask: Ask, noise: torch.Generator
    ) -> list[list[int]]:
        """The responses of one batch."""
        primary, other = (Reader(model) for model in self._models)
        stops = torch.tensor(ask.stop_token_ids, dtype=torch.long)
        new, mask = padded_left(prompts)
        row, going = torch.arange(len(prompts)), torch.ones(len(prompts), dtype=torch.bool)
        left = torch.full((len(prompts),), _NO_LIMIT if ask.budget is None else ask.budget)
        responses: list[list[int]] = [[] for _ in prompts]
        for _ in range(ask.max_tokens):
            p = truncate(primary.read(new, mask), ask.sampling)
            q = (
                truncate(other.read(new, mask), ask.sampling) if left.any() else p
            )  # what is spent stays so
            token, intervened = decide(p, q, left, ask.threshold, noise)
            left -= intervened.long()
            for at, taken in zip(row[going].tolist(), token[going].tolist(), strict=True):
                responses[at].append(taken)
            going &= ~torch.isin(token, stops)
            if not going.any():
                break
            if 2 * going.sum() <= len(going):
                row, token, left, mask = row[going], token[going], left[going], mask[going]
                primary.keep(going)
                other.keep(going)
                going = going[going]
            new, mask = token[:, None], torch.nn.functional.pad(mask, (0, 1), value=1)
        return responses


class Reader:
    """A model and what it has read of a batch."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self._model, self._cache = model, DynamicCache(config=model.config)

    def read(self, new: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] after the tokens new [B, N]. mask [B, T]: 0 for padding, of these and all
        before.
        """
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
        read = self._model(
            new,
            attention_mask=mask,
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = read.logits[:, -1]
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        """Forget the others. rows [B], whether each is kept."""
        if self._cache.get_seq_length():
            self._cache.batch_select_indices(rows)


def padded_left(prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, T] that end together, and a mask [B, T] that is 0 where there is none."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def truncate(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What is sampled from, [B, V]: softmax at the temperature, then top-k, then top-p; 0
    elsewhere, rows sum to 1.
    """
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    p = logits.softmax(-1)
    if sampling.top_p < 1:
        ordered, token = p.sort(descending=True, stable=True)
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0
        p = torch.zeros_like(p).scatter_(-1, token, ordered)
    return p / p.sum(-1, keepdim=True)


def js_divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence in nats, [B]: H((p + q) / 2) - (H(p) + H(q)) / 2."""
    mixed, of_p, of_q = (torch.special.entr(x).sum(-1) for x in ((p + q) / 2, p, q))
    js: torch.Tensor = mixed - (of_p + of_q) / 2
    return js


def decide(
    p: torch.Tensor, q: torch.Tensor, left: torch.Tensor, threshold: float, noise: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token of each row [B], and whether it comes from the intervention policy. p, q [B, V]; left
    [B]: budgets.
    """
    intervened = (js_divergence(p, q) > threshold) & (left > 0)
    return torch.where(intervened[:, None], q, p).multinomial(1, generator=noise)[:, 0], intervened
