"""What devices attain: GPUs by their data sheets, a CPU by a measurement of milliseconds.

Data sheets give peaks. What a decode step attains of them, and what the host adds to a step, are
assumptions here, which no GPU has confirmed; a run corrects them by its own speed
(`run.time_left`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from engine.models.roofline import Device


class _Peak(NamedTuple):
    """Peak figures of a GPU."""

    gb_per_s: float
    """Memory bandwidth, 10^9 bytes a second."""
    tflops: float
    """10^12 operations a second in bfloat16 without sparsity (float16 where it has no bfloat16)."""


# NVIDIA's public data sheets and architecture white papers of each product; A10G: Amazon's page of
# its G5 instances. Where a sheet gives operations with sparsity, half of them. A name stands for
# every device whose name in torch holds all its words; of several the one with most words.
_GPUS = {
    "B200": _Peak(8000, 2250),
    "GH200": _Peak(4000, 989),
    "H200": _Peak(4800, 989),
    "H200 NVL": _Peak(4800, 835),
    "H100": _Peak(3350, 989),
    "H100 PCIe": _Peak(2000, 756),
    "H100 NVL": _Peak(3900, 835),
    "H20": _Peak(4000, 148),
    "A100": _Peak(1555, 312),
    "A100 80GB": _Peak(2039, 312),
    "A100 80GB PCIe": _Peak(1935, 312),
    "A30": _Peak(933, 165),
    "A40": _Peak(696, 150),
    "A10": _Peak(600, 125),
    "A10G": _Peak(600, 70),
    "L40S": _Peak(864, 362),
    "L40": _Peak(864, 181),
    "L4": _Peak(300, 121),
    "RTX A6000": _Peak(768, 155),
    "RTX 6000 Ada": _Peak(960, 364),
    "RTX 5090": _Peak(1792, 209),
    "RTX 4090": _Peak(1008, 165),
    "RTX 3090": _Peak(936, 71),
    "V100": _Peak(900, 125),
    "T4": _Peak(320, 65),
}
ASSUMED_GPU = "H100"
"""Taken where a run is planned for GPUs on a machine that has none."""

_SHARE_OF_BANDWIDTH, _SHARE_OF_FLOPS = 0.75, 0.5
_GPU_STEP_SECONDS, _GPU_ROW_SECONDS = 3e-3, 2e-5
# Two all-reduces a layer of some 15 us each, over the 64 layers of a 32B model.
_TENSOR_PARALLEL_SECONDS = 2e-3
_PEAK_BYTES = 2  # of the numbers that `tflops` speaks of

# Measured once: the embedded pair, one core of an Intel Xeon an engine, 16 to 128 slots.
_CPU_STEP_SECONDS, _CPU_ROW_SECONDS = 2.3e-3, 6.5e-5
_CPU_ARRAY_BYTES = 1 << 25  # beyond what a core's own caches hold
_CPU_MATRIX = 384
_CPU_READS = 3


def gpu(name: str, dtype_bytes: int, num_devices: int) -> Device | None:
    """What a GPU attains, one of the tensor-parallel devices of an engine.

    Args:
        name: As torch gives it.
        dtype_bytes: Bytes of a weight.
        num_devices: Devices of an engine.

    Returns:
        None for a GPU that is not known, and for a slice of one.
    """
    words = set(name.replace("-", " ").split())
    known = [entry for entry in _GPUS if set(entry.split()) <= words and "MIG" not in words]
    if not known:
        return None
    peak = _GPUS[max(known, key=lambda entry: len(entry.split()))]
    return Device(
        name,
        _SHARE_OF_BANDWIDTH * peak.gb_per_s * 1e9,
        _SHARE_OF_FLOPS * peak.tflops * 1e12 * _PEAK_BYTES / dtype_bytes,
        _GPU_STEP_SECONDS + (_TENSOR_PARALLEL_SECONDS if num_devices > 1 else 0.0),
        _GPU_ROW_SECONDS,
    )


def cpu(num_ranks: int) -> Device:
    """What this machine's cores attain, shared by so many ranks; measured at the first call."""
    bandwidth, flops = _measured()
    return Device(
        "CPU",
        bandwidth / num_ranks,
        flops / num_ranks,
        _CPU_STEP_SECONDS,
        _CPU_ROW_SECONDS,
    )


@cache
def _measured() -> tuple[float, float]:
    """Bytes and float32 operations a second of all cores, the best of a few tries each."""
    array = np.ones(_CPU_ARRAY_BYTES // 4, np.float32)
    matrix = np.ones((_CPU_MATRIX, _CPU_MATRIX), np.float32)
    reading = min(_seconds(lambda: array.sum()) for _ in range(_CPU_READS))
    computing = min(_seconds(lambda: matrix @ matrix) for _ in range(_CPU_READS))
    return array.nbytes / reading, 2 * _CPU_MATRIX**3 / computing


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
