"""What all commands share: errors as one line and an exit code, --debug, and where output goes.

An error of `engine.errors` ends the command with its own exit code, Ctrl-C with 130, SIGTERM with
143. Any other exception is a bug and ends it with 1.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import click

from engine.errors import XsampleError
from engine.system.log import logger
from engine.system.signals import Stopped
from engine.system.terminal import one_line, visible
from xsample.cli.panels import PanelGroup

if TYPE_CHECKING:
    from rich.console import RenderableType

_PIPE_WIDTH = 120  # rich would assume 80 columns where there is no terminal, and wrap the table


class Commands(PanelGroup):
    """The commands; the one place where exceptions become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except XsampleError as error:
            _fail(ctx, str(error), error.exit_code, error)
        except KeyboardInterrupt as error:
            stopped = Stopped("stopped", error)
            _fail(ctx, str(stopped), stopped.exit_code, error)
        except click.UsageError as error:  # its message may quote what a stranger wrote
            raise click.UsageError(one_line(error.format_message()), error.ctx) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click handles them; BrokenPipeError: the reader of our output closed the pipe
        except Exception as error:
            name = type(error).__name__
            _fail(ctx, f"unexpected {name}: {error}. This is a bug; --debug shows where", 1, error)


def _fail(ctx: click.Context, message: str, exit_code: int, error: BaseException) -> NoReturn:
    if ctx.meta.get("debug"):
        traceback.print_exception(error)
    # The last record in the log of the run, if it has one.
    logger.error(message, exc_info=error, extra={"on_screen": True})
    say(one_line(message))
    ctx.exit(exit_code)


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta["debug"] = True  # a command shares meta with the group above it


debug_option = click.option(
    "--debug",
    is_flag=True,
    envvar="XSAMPLE_DEBUG",
    expose_value=False,
    is_eager=True,
    callback=_remember_debug,
    help="Show tracebacks; XSAMPLE_DEBUG=1 does the same.",
)


def say(message: str) -> None:
    """Print one line to standard error: standard output holds results only."""
    click.echo(f"xsample: {visible(message)}", err=True)


def show(renderable: RenderableType) -> None:
    """Print a result to standard output."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(width=None if on_terminal else _PIPE_WIDTH, highlight=False).print(renderable)
