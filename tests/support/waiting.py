"""Waiting for what other processes do. A deadline here only ends a test that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psutil


def comes_true(condition: Callable[[], object], within: float = 300.0) -> bool:
    """Whether `condition()` becomes true in the next `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended and was not yet waited for does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
