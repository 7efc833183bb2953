"""What every command shares: errors as one line and an exit code, --debug, SIGTERM, and where
output goes.

An error of the tree ends with its exit code, Ctrl-C with 130, SIGTERM with 143, anything else is a
bug and ends with 1.
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


def say(message: str) -> None:
    """One line on standard error: standard output holds results only."""
    click.echo(f"xsample: {visible(message)}", err=True)


def show(renderable: RenderableType) -> None:
    """A result, on standard output."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(width=None if on_terminal else _PIPE_WIDTH, highlight=False).print(renderable)
