"""A call that may never end, or take all memory: made in a forked process that the kernel stops at
a bound.

For what a stranger wrote and a library of ours runs, such as a chat template. The call must need
nothing but memory: threads do not live on in the child.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn


def bounded(call: Callable[[], Any], cpu_s: int, memory_mib: int) -> Any:
    """What `call` returns, as JSON has it, within this CPU time and this much more memory.

    Raises ValueError, in one line, where it raised, or was stopped.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of Python 3.12, where there are threads
        child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(writer, call, cpu_s, memory_mib)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
    finally:  # also of a Ctrl-C
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answer:
        raise ValueError(f"it takes more than {cpu_s} s of CPU time, or {memory_mib} MiB of memory")
    value, error = json.loads(answer)
    if error is not None:
        raise ValueError(error)
    return value


def _answer(writer: int, call: Callable[[], Any], cpu_s: int, memory_mib: int) -> NoReturn:
    """The child: never returns, and runs nobody's clean-up."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        most = _address_space() + (memory_mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            answer = [call(), None]
        except Exception as error:
            answer = [None, " ".join(str(error).split()) or type(error).__name__]
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
