"""The memory that a pair needs on one device, estimated before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config.run_config import CPU_KV_CACHE_GIB, RunConfig
from engine.errors import ModelError
from engine.models.pair_info import DTYPE_BYTES, PairInfo
from engine.system.machine import available_memory, visible_gpus

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one device: on the host, or on each GPU."""

    weights: int
    """Weights of all engines that share the device."""
    kv_cache: int | None
    """KV cache that these engines ask for; None if vLLM chooses."""
    kv_per_sequence: int
    """KV cache of one engine for one sequence of full length."""
    available: int | None
    """What the device has; None if it cannot be seen from this machine."""
    warning: str | None
    """One line for the user, if the run may not fit."""


def estimate_memory(pair: PairInfo, config: RunConfig, max_model_len: int) -> MemoryEstimate:
    """Estimate what one pair needs on a device.

    Args:
        pair: The models.
        config: The settings of the run.
        max_model_len: Context of the engines, in tokens.

    Raises:
        ModelError: The weights alone do not fit.
    """
    gpus = visible_gpus() if config.device != "cpu" else []
    on_gpu = config.device == "cuda" or bool(gpus)
    num_devices = config.tensor_parallel_size if on_gpu else 1
    is_shared = not on_gpu or config.share_gpu  # by both engines
    dtype = pair.dtype if config.dtype == "auto" else config.dtype
    cast_factor = DTYPE_BYTES[dtype] / DTYPE_BYTES[pair.dtype]
    stored = (pair.base_weight_bytes, pair.rl_weight_bytes)
    weights = int(cast_factor * (sum(stored) if is_shared else max(stored)) / num_devices)
    kv_engine = None if config.num_kv_blocks else _kv_bytes(config, on_gpu)
    kv_cache = None if kv_engine is None else kv_engine * (2 if is_shared else 1)
    kv_numbers = max(pair.base_kv_numbers, pair.rl_kv_numbers)
    kv_sequence = kv_numbers * DTYPE_BYTES[dtype] * max_model_len // num_devices
    available = None
    if gpus:
        available = min(gpu.memory for gpu in gpus)
    elif not on_gpu:
        available = available_memory()
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
    """Bytes of KV cache that one engine asks for on one device."""
    gib = config.kv_cache_gib or (None if on_gpu else CPU_KV_CACHE_GIB)
    return None if gib is None else int(gib * _GIB)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
