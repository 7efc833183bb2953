"""What two rivals share: a vLLM engine in this process, and a decision from the top
log-probabilities that it returns.

The log-probabilities are those of the full distribution at temperature 1, so that top-p is cut
where the engine itself would cut it; below the top 50 nothing is known, as in the scripts that work
so.

Dimensions: R rows, K candidates a row, the most probable first.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.rivals.ask import Ask
from engine.arrays import Floats, Ints

TOP = 50
# One core for both: they take turns, and what a step of a small model computes is too little to be
# shared out.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0))),
    "OMP_NUM_THREADS": "1",
}
_KV_BYTES = 2**28
# Only whole blocks are found in the prefix cache, so these are as small as vLLM's CPU kernels take
# well: by default they hold 128 tokens there, more than most responses of the embedded pair.
BLOCK_SIZE = 32
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Truncated:
    """Distributions that are sampled from. token [R, K]; p [R, K], 0 beyond the nucleus, each row
    sums to 1.
    """

    token: Ints
    p: Floats


def load_engine(
    model: str, max_model_len: int, max_num_seqs: int, block_size: int | None = BLOCK_SIZE
) -> Any:
    """A `vllm.LLM` that takes and gives token ids, with the prefix cache on. block_size: None for
    vLLM's own.
    """
    import torch
    from vllm import LLM

    engine = LLM(
        model,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_logprobs=TOP,
        enable_prefix_caching=True,
        block_size=block_size,
        skip_tokenizer_init=True,
        generation_config="vllm",
        enforce_eager=not torch.cuda.is_available(),
        kv_cache_memory_bytes=_KV_BYTES,
        gpu_memory_utilization=0.01,  # with the KV size given, only what must be free
    )
    gc.collect()
    # what is loaded stays: the project's own worker is spared looking through it as well
    gc.freeze()
    return engine


def check(ask: Ask) -> None:
    """The engines' log-probabilities are at temperature 1."""
    assert ask.sampling.temperature == 1 and not ask.sampling.top_k, (
        "these rivals know temperature 1 and top-p only"
    )


def generate(engine: Any, prompts: Sequence[list[int]], params: Any) -> list[Any]:
    """Outputs in the order of the prompts. params: one, or one a prompt."""
    return list(
        engine.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    )


def truncated(flat: Sequence[Any], top_p: float, skip: int = 0) -> Truncated:
    """What vLLM's flat log-probabilities of several outputs say, cut at top_p. skip: positions at
    the start of each.
    """
    token, log_p = (
        _rows([getattr(one, name) for one in flat], skip) for name in ("token_ids", "logprobs")
    )
    p = np.exp(log_p)
    p[np.cumsum(p, 1) - p >= (top_p - _ROUNDING if top_p < 1 else np.inf)] = 0
    widest = int((p > 0).sum(1).max(initial=1))
    return Truncated(token[:, :widest].astype(np.int64), p[:, :widest] / p.sum(1, keepdims=True))


def _rows(entries: list[list[Any]], skip: int) -> Any:
    """[R, K]; a position has the token that was taken and then the top 50, the taken one among
    them.
    """
    return np.concatenate([np.reshape(one, (-1, TOP + 1))[skip:, 1:] for one in entries])


def js_divergence(a: Truncated, b: Truncated) -> Floats:
    """Jensen-Shannon divergence in nats, [R]."""
    same = a.token[:, :, None] == b.token[:, None, :]
    b_at_a, a_at_b = (same * b.p[:, None, :]).sum(2), (same * a.p[:, :, None]).sum(1)
    return 0.5 * (_to_middle(a.p, b_at_a) + _to_middle(b.p, a_at_b))


def _to_middle(p: Floats, q: Floats) -> Floats:
    """KL(p || (p + q) / 2), [R]."""
    held = np.where(p > 0, p, 1)
    return np.asarray((p * np.log(2 * held / (held + q))).sum(1))


def draw(from_: Truncated, noise: np.random.Generator) -> Ints:
    """A token a row, [R]."""
    below = np.cumsum(from_.p, 1) <= noise.random((len(from_.p), 1))
    place = np.minimum(
        below.sum(1), (from_.p > 0).sum(1) - 1
    )  # the sum of a row may be a little below 1
    return np.asarray(from_.token[np.arange(len(place)), place])


def has_ended(response: list[int], ask: Ask) -> bool:
    """Whether nothing may follow."""
    return len(response) >= ask.max_tokens or (
        bool(response) and response[-1] in ask.stop_token_ids
    )
