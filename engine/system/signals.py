"""Ctrl-C, SIGTERM and a lost terminal held back until the work is at a safe point: no commit is
ever cut in two.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

from engine.errors import XsampleError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def put_handlers_back(number: int = 0, frame: FrameType | None = None) -> None:
    """Install the handlers of `ENDING` again where Python believes them to be.

    Ray's C++ installs its own as it starts, which print a stack and end the process, and the
    default as it ends.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, signal.getsignal(number) or signal.SIG_DFL)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Inside the block the handlers of `ENDING` are put back every 10 ms, whatever a library's C
    code does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, put_handlers_back)
    alarm = signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, *alarm)
        put_handlers_back()


class Interrupted(BaseException):
    """A signal has come; unwinds to the end of the `HeldSignals` block, which then delivers it."""


class HeldSignals:
    """Inside the block the signals of `ENDING` are only noted; `check` unwinds when one has come.

    After the block, with clean-up done, the signal goes to whoever handled it before. Does nothing
    outside the main thread, where Python takes no signals.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if signal.getsignal(number) != signal.SIG_IGN:  # as with nohup
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._came is not None:
            raise Interrupted

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> bool:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if self._came is not None and (error is None or isinstance(error, Interrupted)):
            signal.raise_signal(self._came)
        return isinstance(error, Interrupted)


class Terminated(KeyboardInterrupt):
    """SIGTERM, or the loss of the terminal: cleaned up after like Ctrl-C, and told apart in the
    exit code.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


class Stopped(XsampleError):
    """Ctrl-C or SIGTERM, after clean-up."""

    def __init__(self, message: str, by: KeyboardInterrupt) -> None:
        super().__init__(message)
        self.exit_code = 128 + (by.number if isinstance(by, Terminated) else signal.SIGINT)


@contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP raise Terminated; one that is ignored, as with nohup,
    stays so.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, terminate) for number in numbers}
    try:
        with _raised_again_where_ignored():
            yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _raised_again_where_ignored() -> Iterator[None]:
    """What strikes a callback (of a weak reference, a finaliser) Python prints and ignores. Where
    that is a KeyboardInterrupt, or Terminated, of this block, the signal is sent again 10 ms later,
    to who handles it then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook, before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    ignored: list[int] = []

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if (
            not isinstance(error, KeyboardInterrupt)
            or threading.current_thread() is not threading.main_thread()
        ):
            hook(unraisable)
            return
        ignored.append(error.number if isinstance(error, Terminated) else signal.SIGINT)
        signal.signal(signal.SIGALRM, send_again)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def send_again(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(ignored[-1])

    sys.unraisablehook = note
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if ignored:
            still_to_come, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
            if still_to_come:
                signal.raise_signal(ignored[-1])
