"""The floor under a decode step: the time that it takes only to read what it must, the weights and
the KV cache.

Bandwidth is measured by reading an array again and again with as many threads as an engine has. One
that is larger than the caches gives that of the memory, one as large as what a step reads about
that of the best cache that holds it. Both are estimates: on a GPU a small array takes as long as
its launch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from benchmarks.workload import Workload, kv_bytes_per_token, weight_bytes

_LARGER_THAN_CACHES = 2**31
_SECONDS = 0.5
_READS = 3


@dataclass(frozen=True)
class Floor:
    """What one engine reads in a step, in bytes, and the least microseconds that takes: from
    memory, from a cache.
    """

    weights: int
    kv: int
    us_from_memory: float
    us_from_cache: float


def floor(workload: Workload, lengths: list[int], num_threads: int) -> Floor:
    """Of a decode step with all slots in use, in the middle of responses of these lengths."""
    worker = workload.config.workers["base"]
    weights = weight_bytes(worker)
    kv = int(workload.slots * mean_context(workload.prompts, lengths) * kv_bytes_per_token(worker))
    read = weights + kv
    from_memory, from_cache = (
        1e6 * read / bandwidth(size, workload.device, num_threads)
        for size in (_LARGER_THAN_CACHES, min(read, _LARGER_THAN_CACHES))
    )
    return Floor(weights, kv, from_memory, from_cache)


def mean_context(prompts: list[list[int]], lengths: list[int]) -> float:
    """Tokens that a token of these responses attends to."""
    attended = sum(
        n * len(prompt) + n * (n + 1) / 2 for prompt, n in zip(prompts, lengths, strict=True)
    )
    return attended / sum(lengths)


def bandwidth(num_bytes: int, device: str, num_threads: int) -> float:
    """Bytes a second at which an array of so many bytes is read; on a GPU: read and written, as a
    copy does.
    """
    array = torch.ones(max(1, num_bytes // 4), dtype=torch.float32, device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        return _on_gpu(array) if device == "cuda" else _on_cpu(array)
    finally:
        torch.set_num_threads(threads)


def _on_cpu(array: torch.Tensor) -> float:
    best, until, num_reads = 0.0, time.perf_counter() + _SECONDS, 0
    while num_reads < _READS or time.perf_counter() < until:
        began = time.perf_counter()
        torch.sum(array)
        best = max(best, array.nbytes / (time.perf_counter() - began))
        num_reads += 1
    return best


def _on_gpu(array: torch.Tensor) -> float:
    copy, best = torch.empty_like(array), 0.0
    for _ in range(_READS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        copy.copy_(array)
        torch.cuda.synchronize()
        best = max(best, 2 * array.nbytes / (time.perf_counter() - began))
    return best
