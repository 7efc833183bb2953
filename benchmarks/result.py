"""What every benchmark tells beside its numbers: the machine, and medians with their spread."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most of the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def machine() -> str:
    """The processor, and how many cores there are."""
    cpu = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return f"{next(cpu, platform.machine()).partition(':')[2].strip()}, {os.cpu_count()} cores"
