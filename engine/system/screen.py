"""Which display a run has: live on a terminal, in place in a notebook, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
from typing import TextIO

from rich.console import Console

from engine.system.display import Display, LiveDisplay, PlainDisplay
from engine.system.notebook import NotebookDisplay, in_notebook


def open_display(stream: TextIO | None = None) -> Display:
    """A display on `stream`, by default standard error: standard output holds results only."""
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
