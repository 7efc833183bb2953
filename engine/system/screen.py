"""Chooses the display of a run: live on a terminal, in place in a notebook, else plain lines."""

from __future__ import annotations

import io
import sys
from typing import TextIO

from rich.console import Console

from engine.system.display import Display, LiveDisplay, PlainDisplay
from engine.system.notebook import NotebookDisplay, in_notebook


def open_display(stream: TextIO | None = None) -> Display:
    """The display that fits `stream`.

    Args:
        stream: Where to show it; by default the notebook, or standard error: standard output holds
            results only.
    """
    if stream is None and in_notebook():
        return NotebookDisplay()
    stream = stream or sys.stderr
    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(stream)


def silent_display() -> Display:
    """A display that shows nothing."""
    return PlainDisplay(io.StringIO())
