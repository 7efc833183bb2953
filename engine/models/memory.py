"""Memory: what a pair needs on one device, estimated before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config.run_config import CPU_KV_CACHE_GIB, RunConfig
from engine.errors import ModelError
from engine.models.pair_info import DTYPE_BYTES, PairInfo
from engine.system.machine import available_memory, visible_gpus

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one device (the host, or each GPU); `available` is None where that cannot be seen
    from here.

    weights:         of the engines that share the device
    kv_cache:        asked for by these engines; None when vLLM chooses
    kv_per_sequence: one engine's KV cache for one sequence of full length
    warning:         one line, or None
    """

    weights: int
    kv_cache: int | None
    kv_per_sequence: int
    available: int | None
    warning: str | None


def estimate_memory(pair: PairInfo, config: RunConfig, max_model_len: int) -> MemoryEstimate:
    """Estimate what one pair needs on a device. Raises ModelError when its weights alone cannot
    fit.
    """
    gpus = visible_gpus() if config.device != "cpu" else []
    on_gpu = config.device == "cuda" or bool(gpus)
    dtype = pair.dtype if config.dtype == "auto" else config.dtype
    widening = DTYPE_BYTES[dtype] / DTYPE_BYTES[pair.dtype]
    both = (pair.base_weight_bytes, pair.rl_weight_bytes)
    shared = not on_gpu or config.share_gpu
    weights = int(
        widening
        * (sum(both) if shared else max(both))
        / (config.tensor_parallel_size if on_gpu else 1)
    )
    kv_engine = None if config.num_kv_blocks else _kv_bytes(config, on_gpu)
    kv_cache = None if kv_engine is None else kv_engine * (2 if shared else 1)
    kv_numbers = max(pair.base_kv_numbers, pair.rl_kv_numbers)
    kv_sequence = (
        kv_numbers
        * DTYPE_BYTES[dtype]
        * max_model_len
        // (config.tensor_parallel_size if on_gpu else 1)
    )
    available = min(gpu.memory for gpu in gpus) if gpus else None if on_gpu else available_memory()
    where = "each GPU" if on_gpu else "this machine"
    if available is not None and weights > available:
        raise ModelError(
            f"--base and --rl need {_gib(weights)} for their weights on {where}, which has"
            f" {_gib(available)}: give smaller"
            f" models{', more GPUs (--tensor-parallel-size)' if on_gpu else ' or run on GPUs'}"
        )
    warning = _memory_warning(weights, kv_engine, kv_cache, kv_sequence, available, where)
    return MemoryEstimate(weights, kv_cache, kv_sequence, available, warning)


def _memory_warning(
    weights: int,
    kv_engine: int | None,
    kv_cache: int | None,
    kv_sequence: int,
    available: int | None,
    where: str,
) -> str | None:
    if kv_engine is not None and kv_engine < kv_sequence:
        return (
            f"a KV cache of {_gib(kv_engine)} is less than the {_gib(kv_sequence)} of one sequence"
            f" of full length: give --kv-cache-gib {kv_sequence / _GIB * 1.05:.2g} or more, or a"
            " smaller --max-tokens"
        )
    if available is not None and weights + (kv_cache or 0) > available:
        return (
            f"weights ({_gib(weights)}) and KV cache ({_gib(kv_cache or 0)}) are more than the"
            f" {_gib(available)} of {where}: the engines may not start; give a smaller"
            " --kv-cache-gib"
        )
    return None


def _kv_bytes(config: RunConfig, on_gpu: bool) -> int | None:
    """KV cache that one engine asks for on one device."""
    gib = config.kv_cache_gib or (None if on_gpu else CPU_KV_CACHE_GIB)
    return None if gib is None else int(gib * _GIB)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
