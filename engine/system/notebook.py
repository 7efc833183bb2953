"""The progress of a run in a notebook: one output of the cell that is updated in place."""

from __future__ import annotations

import sys
import time
from typing import Any

from engine.system.display import Display, Snapshot, collapse_whitespace, facts

_UPDATE_SECONDS = 0.5
_MAX_NOTES = 50


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


class NotebookDisplay(Display):
    """Notes, the stage and the numbers as lines of one output; plain text, so nothing is markup."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._notes: list[str] = []
        self._stage = ""
        self._snapshot: Snapshot | None = None
        self._next_update = 0.0

    def stage(self, text: str) -> None:
        self._stage = collapse_whitespace(text)
        self._draw()

    def update(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        if time.monotonic() >= self._next_update:
            self._draw()

    def note(self, text: str) -> None:
        self._notes = [*self._notes[-_MAX_NOTES:], collapse_whitespace(text)]
        self._draw()

    def __exit__(self, *_: object) -> None:
        self._stage = ""
        self._draw()

    def _draw(self) -> None:
        import IPython.display

        self._next_update = time.monotonic() + _UPDATE_SECONDS
        lines = [*self._notes, *filter(None, [self._stage])]
        if self._snapshot and self._snapshot.tokens + self._snapshot.done:
            lines.append(", ".join(facts(self._snapshot)))
        output = {"text/plain": "\n".join(lines)}
        if self._handle is None:
            show: Any = IPython.display.display  # IPython's functions have no types
            self._handle = show(output, raw=True, display_id=True)
        else:
            self._handle.update(output, raw=True)
