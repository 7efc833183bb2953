"""What this process may use of its machine: cores, memory, GPUs.

Takes CPU affinity and control groups into account, the limits that Slurm and containers set and
that plain system calls do not show. Imports nothing of ours and nothing heavy.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

CGROUP = Path("/sys/fs/cgroup")
"""Where the kernel shows control groups; tests give their own folder."""


class Gpu(NamedTuple):
    """One visible CUDA device."""

    name: str
    memory: int
    """All of it, in bytes."""


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may keep busy, at least 1.

    The least of its CPU affinity and the CPU quotas of its control groups.
    """
    cores = float(len(os.sched_getaffinity(0)))
    for group in _groups(cgroup):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        quota = quota or _read(group / "cpu.cfs_quota_us")
        period = period or _read(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            cores = min(cores, int(quota) / int(period))
    return max(1, int(cores))


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes that this process can still use without swapping.

    The least of what the machine has and what the limits of its control groups leave.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    for group in _groups(cgroup):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        if limit.isdecimal() and used.isdecimal():
            available = min(available, max(0, int(limit) - int(used) + _reclaimable(group)))
    return available


def visible_gpus() -> list[Gpu]:
    """The CUDA devices that torch sees; imports torch, which takes seconds."""
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [
        torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())
    ]
    return [Gpu(device.name, device.total_memory) for device in devices]


def free_gpu_memory(in_own_process: bool = False) -> int | None:
    """Free bytes of the visible GPU that has the least of them; None without a GPU.

    Waits until the number is steady: an engine that was killed gives its memory back over some
    time.

    Args:
        in_own_process: Ask in a process of its own, since asking makes a CUDA context, half a GiB
            on each GPU, in the process that asks.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    if in_own_process:
        code = f"import {__name__} as machine; print(machine.free_gpu_memory())"
        command = [sys.executable, "-c", code]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def least() -> int:
        devices = range(torch.cuda.device_count())
        return min(int(torch.cuda.mem_get_info(device)[0]) for device in devices)

    return steady(least)


def steady(
    read: Callable[[], int], wait: Callable[[float], object] = time.sleep, seconds: int = 10
) -> int:
    """A number that other processes may still be raising, once it has not risen for a second.

    Args:
        read: Reads the number.
        wait: Waits for some seconds.
        seconds: How long to wait at most.
    """
    number = read()
    for _ in range(seconds):
        wait(1.0)
        last, number = number, read()
        if number <= last:
            break
    return number


def _groups(root: Path) -> Iterator[Path]:
    """Every control group that this process is in, version 2 or 1, from the innermost outwards.

    Inside a container the path of a group may not exist: the mount point is then the group itself.
    """
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in [root / name for name in controllers.split(",")] if controllers else [root]:
            group = mount / path.lstrip("/")
            yield from (
                folder
                for folder in (group, *group.parents)
                if folder == mount or mount in folder.parents
            )


def _reclaimable(group: Path) -> int:
    """Bytes of file cache that the kernel frees before the limit takes effect."""
    words = _read(group / "memory.stat").split()
    counts = dict(zip(words[::2], words[1::2], strict=False))
    return int(counts.get("inactive_file", 0))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
