"""The size of an engine's KV cache on a GPU, where the user gives none."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import EngineError

# What vLLM does not count where the size of the cache is given: the CUDA context, its graphs and
# the activations of a step.
_RUNTIME_BYTES = 2 * 2**30
# Logits of a step in float32 that may exist at once: vLLM's, the sampler's and what it makes of
# them.
_NUM_LOGITS = 6
_SHARE = 0.9
"""Share of what is then left that the cache takes; the rest is for fragments."""

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class KvCacheNeeds:
    """What one engine needs on one device beside its weights."""

    sequence_bytes: int
    """KV cache of one sequence of full length."""
    max_num_seqs: int
    """Sequences in flight, at most."""
    vocab_size: int


def kv_cache_bytes(
    free_bytes: int, weight_bytes: int, num_engines: int, needs: KvCacheNeeds
) -> int:
    """The KV cache of one engine on one device, in bytes.

    Twice what all sequences in flight can fill is enough: hardly any prefix is asked for again
    later, and vLLM walks over every block before each paired phase.

    Args:
        free_bytes: Free memory of the device before anything is loaded.
        weight_bytes: Weights of all engines on the device.
        num_engines: Engines on the device.
        needs: What each of them needs.

    Raises:
        EngineError: There is no room for one sequence.
    """
    logits = _NUM_LOGITS * 4 * needs.max_num_seqs * needs.vocab_size
    reserve = num_engines * (_RUNTIME_BYTES + logits)
    room = int(_SHARE * (free_bytes - weight_bytes - reserve) / num_engines)
    if room < needs.sequence_bytes:
        raise EngineError(
            f"{_gib(free_bytes)} are free on a GPU. Weights take {_gib(weight_bytes)} and a step"
            f" {_gib(reserve)}, which leaves no room for the {_gib(needs.sequence_bytes)} of one"
            " sequence: give a smaller --max-num-seqs or --max-tokens, more GPUs"
            " (--tensor-parallel-size), or --kv-cache-gib to try a size of your own"
        )
    return min(room, 2 * needs.max_num_seqs * needs.sequence_bytes)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
