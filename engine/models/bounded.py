"""Calls that may never end or take all memory, made in a process that the kernel bounds.

For code of a stranger that a library of ours runs, such as a chat template. The process is a fork,
in which only the calling thread lives on: the call may use the memory of its parent, and nothing
that another thread does.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import first_line

# How long the call may take by the clock, beside its bound on CPU time: the machine may be busy.
_WALL_SECONDS, _WALL_FACTOR = 60.0, 20.0


def call_bounded(call: Callable[[], Any], cpu_s: int, memory_mib: int) -> Any:
    """Call a function in a process with a bound on its CPU time and memory.

    Args:
        call: The function. Its result must be of types that JSON has.
        cpu_s: Seconds of CPU time.
        memory_mib: MiB of memory beside what this process has mapped.

    Returns:
        What the function returned, through JSON: tuples have become lists.

    Raises:
        ValueError: It raised an error, whose first line is the message, or reached a bound.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(writer, call, cpu_s, memory_mib)
    os.close(writer)
    try:
        answer = _read_until(reader, time.monotonic() + _WALL_SECONDS + _WALL_FACTOR * cpu_s)
    finally:  # also after Ctrl-C
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answer:
        raise ValueError(f"it takes more than {cpu_s} s of CPU time, or {memory_mib} MiB of memory")
    value, error = json.loads(answer)
    if error is not None:
        raise ValueError(error)
    return value


def _read_until(reader: int, deadline: float) -> bytes:
    """All that comes out of a pipe; nothing where it is not closed by the deadline.

    A fork beside threads may wait forever for a lock that one of them held, and takes no CPU time.
    """
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        answer = b""
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (block := pipe.read(1 << 16)):
                return answer
            answer += block
    return b""


def _run_child(writer: int, call: Callable[[], Any], cpu_s: int, memory_mib: int) -> NoReturn:
    """The child: writes one answer, and ends without the clean-up that its parent would do."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        max_bytes = _address_space() + (memory_mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
        try:
            answer = [call(), None]
        except Exception as error:
            answer = [None, first_line(error)]
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
