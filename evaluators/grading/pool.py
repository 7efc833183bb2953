"""Grading processes: each compares one answer at a time, and is replaced when it takes too long.

A process runs `math_worker.py` on pipes: one line of JSON per question, one word per verdict. So
there is no pickle, no fork of a process with threads and no second import of `__main__`. It has no
terminal, so Ctrl-C reaches the parent only. A process starts with its first question, and ends with
its parent: at once when idle, since its input ends, and at the deadline when busy. All processes
hash strings alike, so sympy goes through sets in one order, and verdicts repeat from run to run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from typing import cast

from engine.errors import XsampleError
from evaluators.grading.formula import Question
from evaluators.grading.verdict import Verdict

_PROGRAM = Path(__file__).with_name("math_worker.py")
_START_TIMEOUT_S = 120.0
_ATTEMPTS = 2
# The process's own deadline comes this much later, for when its parent is gone or was stopped.
_GRACE_S = 2.0


class _WorkerDiedError(Exception):
    """The process ended before it answered."""


class MathPool:
    """Processes that answer questions side by side.

    Args:
        workers: Processes at most.
        deadline_s: Seconds after which a question's verdict is "timed_out".
    """

    def __init__(self, workers: int, deadline_s: float) -> None:
        self._workers = [_Worker(deadline_s) for _ in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, "grading")

    def submit(self, question: Question) -> Future[Verdict]:
        """Ask a question without waiting for its verdict.

        Returns:
            The future verdict; XsampleError in it means that a process cannot be started.
        """
        return self._threads.submit(self._compare, question)

    def pids(self) -> list[int]:
        """The ids of the processes that run now."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        """End all processes, even busy ones, and drop the waiting questions."""
        for worker in self._workers:
            worker.abort()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _compare(self, question: Question) -> Verdict:
        worker = self._idle.get()
        try:
            return worker.compare(question)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, started when needed.

    Only the thread that holds the worker uses it, except for `abort` and `pid`.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # guards _process and _aborted between the holder and `abort`
        self._aborted = False
        self._has_served = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def compare(self, question: Question) -> Verdict:
        """The verdict on a question; "ungradable" if _ATTEMPTS processes die over it.

        Raises:
            XsampleError: The process cannot be started.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._ask(question)
            except _WorkerDiedError:
                self.end()
            except TimeoutError:
                self.end()
                return "timed_out"
        if not self._has_served:
            raise XsampleError(
                f"a grading process ({sys.executable} {_PROGRAM}) ends before it can be asked"
                " anything"
            )
        return "ungradable"

    def abort(self) -> None:
        """Kill the process and start no other; a thread that waits for it sees its end."""
        with self._lock:
            self._aborted = True
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """Kill the process, if there is one, and release what it held."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _ask(self, question: Question) -> Verdict:
        if self._process is not None and self._process.poll() is not None:
            self.end()  # it ended while idle: worn out, or killed
        process = self._process or self._start()
        assert process.stdin is not None, "stdin is a pipe"
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            raise _WorkerDiedError from None
        return cast(Verdict, self._read(process, self._deadline_s))

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-P", str(_PROGRAM), str(self._deadline_s + _GRACE_S)]
        with self._lock:
            if self._aborted:
                raise XsampleError("grading was stopped")
            process = self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
        try:
            status = self._read(process, _START_TIMEOUT_S)
        except TimeoutError:
            status = f"silent for {_START_TIMEOUT_S:.0f} s"
        if status != "ready":
            self.end()
            raise XsampleError(f"a grading process cannot be started: {status}")
        self._has_served = True
        return process

    @staticmethod
    def _read(process: subprocess.Popen[bytes], timeout_s: float) -> str:
        """The next line of the process's output.

        Raises:
            TimeoutError: There is no line in time, or the process's own deadline ended it.
            _WorkerDiedError: The process ended.
        """
        assert process.stdout is not None, "stdout is a pipe"
        if not wait([process.stdout.fileno()], timeout_s):
            raise TimeoutError
        line = process.stdout.readline()
        if line:
            return line.decode().strip()
        if process.wait() == -signal.SIGALRM:  # we were stopped, so its own deadline came first
            raise TimeoutError
        raise _WorkerDiedError
