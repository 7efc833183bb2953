"""How many sequences an engine works on at the same time, where the user does not say."""

from __future__ import annotations

from engine.config.run_config import RunConfig
from engine.core import POLICIES
from engine.errors import EngineError
from engine.lockstep.kv_cache import KvCacheNeeds, kv_cache_bytes
from engine.models.memory import MemoryEstimate

# More rows gain little from here on: a step on a CPU is bound by its arithmetic at 128, and one of
# 256 on a GPU reads as much of the KV cache as of the weights.
_MOST_ON_CPU, _MOST_ON_GPU = 128, 256
# Steps of vLLM's CUDA graphs.
_MULTIPLE = 8
# Of the full context that a sequence has on average while it is in flight; it is 0 at its start.
_MEAN_SHARE = 0.5


def num_slots(config: RunConfig, memory: MemoryEstimate, vocab_size: int, on_gpu: bool) -> int:
    """The setting max_num_seqs, or as many sequences as the KV cache has room for.

    Args:
        config: The settings of the run.
        memory: What a pair needs on a device.
        vocab_size: Entries of a row of logits.
        on_gpu: Whether the engines run on GPUs.
    """
    if config.max_num_seqs is not None:
        return config.max_num_seqs
    most = _MOST_ON_GPU if on_gpu else _MOST_ON_CPU
    if config.max_num_batched_tokens is not None:  # a step holds a token of every sequence
        most = min(most, config.max_num_batched_tokens)
    room = _kv_room(config, memory, vocab_size, most, on_gpu)
    if room is None:
        return most
    fitting = int(room / (_MEAN_SHARE * memory.kv_per_sequence))
    if fitting >= most:
        return most
    return max(1, fitting // _MULTIPLE * _MULTIPLE or fitting)


def _kv_room(
    config: RunConfig, memory: MemoryEstimate, vocab_size: int, num_slots: int, on_gpu: bool
) -> int | None:
    """Bytes of one engine's KV cache on one device; None if they are not known yet."""
    if config.num_kv_blocks is not None:
        return None
    num_engines = 1 if on_gpu and not config.share_gpu else len(POLICIES)
    if memory.kv_cache is not None:
        return memory.kv_cache // num_engines
    if memory.available is None:
        return None
    needs = KvCacheNeeds(memory.kv_per_sequence, num_slots, vocab_size)
    try:
        return kv_cache_bytes(memory.available, memory.weights, num_engines, needs)
    except EngineError:  # the free memory, which only the engines see, decides
        return None
