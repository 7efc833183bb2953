"""Grading processes: each compares one answer at a time and is killed and replaced when that takes
too long.

Plain child programs (`math_worker.py`) on pipes, one line of JSON a question and one word an
answer: no pickle, no fork of a process with threads, no second import of whatever `__main__` is,
and no terminal, so that Ctrl-C is the parent's alone. A process ends with its parent: at once when
idle (its input ends), at the deadline when busy. Nothing starts before the first question. Python
hashes strings alike in all of them, so that the order in which sympy goes through a set, and with
it a verdict, is the same in every run.
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
# The process ends itself this much later than we would end it: only when we are gone, or were
# stopped.
_GRACE_S = 2.0


class _WorkerDiedError(Exception):
    """The process ended before it answered."""


class MathPool:
    """At most `workers` processes that answer questions, `deadline_s` seconds each."""

    def __init__(self, workers: int, deadline_s: float) -> None:
        self._workers = [_Worker(deadline_s) for _ in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, "grading")

    def submit(self, question: Question) -> Future[Verdict]:
        """Returns at once. The future raises XsampleError when a process cannot be started."""
        return self._threads.submit(self._judge, question)

    def pids(self) -> list[int]:
        """Processes that run now."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        """End all processes, also busy ones; answers still waiting are dropped."""
        for worker in self._workers:
            worker.abort()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _judge(self, question: Question) -> Verdict:
        worker = self._idle.get()
        try:
            return worker.judge(question)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, started when needed. All but `abort` and `pid` belong to the thread that holds
    the worker.
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

    def judge(self, question: Question) -> Verdict:
        """A process that dies over a question is replaced, and the question gets one more
        chance.
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
        """Kill the process now and start no other; whoever waits for it sees its end."""
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
            self.end()  # it went while idle: worn out, or killed
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
            said = self._read(process, _START_TIMEOUT_S)
        except TimeoutError:
            said = f"silent for {_START_TIMEOUT_S:.0f} s"
        if said != "ready":
            self.end()
            raise XsampleError(f"a grading process cannot be started: {said}")
        self._has_served = True
        return process

    @staticmethod
    def _read(process: subprocess.Popen[bytes], timeout_s: float) -> str:
        """The next line. Raises TimeoutError, or _WorkerDiedError when there will be none."""
        assert process.stdout is not None, "stdout is a pipe"
        if not wait([process.stdout.fileno()], timeout_s):
            raise TimeoutError
        line = process.stdout.readline()
        if line:
            return line.decode().strip()
        if process.wait() == -signal.SIGALRM:  # we were stopped, and its own clock was first
            raise TimeoutError
        raise _WorkerDiedError
