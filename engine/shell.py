"""What every command shares: errors as one line and an exit code, --debug, SIGTERM, and where
output goes.

An error of the tree ends with its exit code, Ctrl-C with 130, SIGTERM with 143, anything else is a
bug and ends with 1.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from engine.errors import XsampleError
from engine.log import logger
from engine.terminal import one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

_PIPE_WIDTH = 120  # rich would assume 80 columns where there is no terminal, and wrap the table


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


class Commands(click.Group):
    """The one place where exceptions become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except XsampleError as error:
            _fail(ctx, str(error), error.exit_code, error)
        except KeyboardInterrupt as error:
            stopped = Stopped("stopped", error)
            _fail(ctx, str(stopped), stopped.exit_code, error)
        except click.UsageError as error:  # it may quote what a stranger wrote
            raise click.UsageError(one_line(error.format_message()), error.ctx) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own, and a reader that has left, which click ends quietly
        except Exception as error:
            what = f"unexpected {type(error).__name__}: {error}. This is a bug; --debug shows where"
            _fail(ctx, what, 1, error)


def _fail(ctx: click.Context, message: str, exit_code: int, error: BaseException) -> NoReturn:
    if ctx.meta.get("debug"):
        traceback.print_exception(error)
    logger.error(
        message, exc_info=error, extra={"on_screen": True}
    )  # the last record of the run's log, if it has one
    say(one_line(message))
    ctx.exit(exit_code)


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta["debug"] = True  # a child's meta is its parent's


debug_option = click.option(
    "--debug",
    is_flag=True,
    envvar="XSAMPLE_DEBUG",
    expose_value=False,
    is_eager=True,
    callback=_remember_debug,
    help="Show tracebacks; XSAMPLE_DEBUG=1 does the same.",
)


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


def say(message: str) -> None:
    """One line on standard error: standard output holds results only."""
    click.echo(f"xsample: {visible(message)}", err=True)


def show(renderable: RenderableType) -> None:
    """A result, on standard output."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(width=None if on_terminal else _PIPE_WIDTH, highlight=False).print(renderable)
