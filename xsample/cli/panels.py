"""Help in panels: how `--help` looks. What it says comes from the commands.

Only help is drawn by rich-click. Errors stay click's own: one line that a log or a script can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import rich_click

# Text is shown as it is written: a default in brackets is no markup.
HELP_CONFIG: dict[str, Any] = {"text_markup": None, "max_width": 110}


class PlainErrors(click.Command):
    """Click's own errors, and its usage line before them."""

    main: Callable[..., Any] = click.Command.main

    def get_usage(self, ctx: click.Context) -> str:
        formatter = click.HelpFormatter(max_width=ctx.max_content_width)
        click.Command.format_usage(self, ctx, formatter)
        return formatter.getvalue().rstrip("\n")


class PanelCommand(PlainErrors, rich_click.RichCommand):
    """A command whose help is drawn in panels."""


class PanelGroup(PlainErrors, rich_click.RichGroup):  # type: ignore[misc]  # as rich-click's are
    """A group whose help lists its commands in panels."""

    command_class = PanelCommand


def option_panels(titles: Mapping[str, Sequence[str]]) -> list[rich_click.RichPanel[Any, Any]]:
    """A panel for each title, which lists the options with these parameter names, in this order."""
    return [
        rich_click.RichOptionPanel(title, options=list(names)) for title, names in titles.items()
    ]


def command_panels(titles: Mapping[str, Sequence[str]]) -> list[rich_click.RichPanel[Any, Any]]:
    """A panel for each title, which lists the commands of these names, in this order."""
    return [
        rich_click.RichCommandPanel(title, commands=list(names)) for title, names in titles.items()
    ]
