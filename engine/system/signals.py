"""Ctrl-C, SIGTERM and a lost terminal: delivered only where the work can stop.

A command turns these signals into exceptions (`sigterm_like_ctrl_c`). A run holds them back until
it is at a safe point (`HeldSignals`), so that no commit is cut in two.

A process has one SIGALRM handler and one real-time timer (ITIMER_REAL), and two functions here use
them for different purposes: `keep_handlers` ticks every 10 ms while Ray stops, `_resend_ignored`
needs one tick after an exception was lost. `keep_handlers` may begin before that tick: it saves
the handler and the remaining time, and puts both back. The reverse does not happen in a run:
`keep_handlers` works inside `HeldSignals`, where no signal raises an exception that could be lost.
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

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a request to end, and the loss of the terminal."""


def restore_handlers() -> None:
    """Install the handlers of `STOP_SIGNALS` that Python believes to be installed.

    Ray's C++ replaces them behind Python's back: as Ray starts, by a handler that prints a stack
    and ends the process, and as Ray stops, by the system's default. Does nothing outside the main
    thread.
    """
    if threading.current_thread() is threading.main_thread():
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.getsignal(signum) or signal.SIG_DFL)


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Restore the handlers of `STOP_SIGNALS` every 10 ms during the block, and after it.

    For a call into a library whose C code replaces them. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tick(signum: int, frame: FrameType | None) -> None:
        restore_handlers()

    previous_handler = signal.signal(signal.SIGALRM, tick)
    previous_timer = signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler or signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, *previous_timer)
        restore_handlers()


class Interrupted(BaseException):
    """A signal was held back: unwinds to the end of the `HeldSignals` block, which delivers it."""


class HeldSignals:
    """Holds `STOP_SIGNALS` back during the block: a signal is noted, and interrupts nothing.

    The work calls `check` at its safe points, and `check` unwinds the block if a signal has come.
    After the block, when all clean-up is done, the signal goes to the handler that was installed
    before. A signal that was ignored before, as with nohup, stays ignored; an error that leaves the
    block is not replaced by a signal. Outside the main thread, where Python delivers no signals,
    the block does nothing.

    Example:
        >>> with HeldSignals() as signals:
        ...     for part in parts:
        ...         commit(part)
        ...         signals.check()
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                if signal.getsignal(signum) != signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._note)
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._received = signum

    def check(self) -> None:
        """Unwind the block if a signal has come.

        Raises:
            Interrupted: A signal has come.
        """
        if self._received is not None:
            raise Interrupted

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> bool:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler or signal.SIG_DFL)
        if self._received is not None and (error is None or isinstance(error, Interrupted)):
            signal.raise_signal(self._received)
        return isinstance(error, Interrupted)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as the exception that `sigterm_like_ctrl_c` raises.

    A KeyboardInterrupt, so that whatever cleans up after Ctrl-C cleans up after it too.

    Args:
        signum: The signal's number. It decides the exit code of the command.
    """

    def __init__(self, signum: int = signal.SIGTERM) -> None:
        super().__init__()
        self.signum = signum


class Stopped(XsampleError):
    """The command was stopped by a signal and has cleaned up; ends it with 128 + the signal.

    Args:
        message: One line for the user: what is kept, and how to go on.
        cause: The exception that the signal has raised.
    """

    def __init__(self, message: str, cause: KeyboardInterrupt) -> None:
        super().__init__(message)
        self.exit_code = 128 + _signum_of(cause)


@contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise Terminated during the block, as Ctrl-C raises KeyboardInterrupt.

    A signal that is ignored, as with nohup, stays ignored.
    """

    def terminate(signum: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(signum)

    caught = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {signum: signal.signal(signum, terminate) for signum in caught}
    try:
        with _resend_ignored():
            yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextmanager
def _resend_ignored() -> Iterator[None]:
    """Send a signal of this block again if Python has ignored the exception that it raised.

    Python prints and ignores every exception in a finaliser or the callback of a weak reference,
    also a KeyboardInterrupt that a signal has raised there by chance. The signal is then sent again
    10 ms later, and whatever handles it by then receives it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_hook, previous_handler = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    ignored: list[int] = []

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if (
            not isinstance(error, KeyboardInterrupt)
            or threading.current_thread() is not threading.main_thread()
        ):
            previous_hook(unraisable)
            return
        ignored.append(_signum_of(error))
        signal.signal(signal.SIGALRM, send_again)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def send_again(signum: int, frame: FrameType | None) -> None:
        signal.raise_signal(ignored[-1])

    sys.unraisablehook = note
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook
        if ignored:
            seconds_left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous_handler or signal.SIG_DFL)
            if seconds_left:  # the block has ended before the tick
                signal.raise_signal(ignored[-1])


def _signum_of(error: KeyboardInterrupt) -> int:
    return error.signum if isinstance(error, Terminated) else signal.SIGINT
