"""What a run shows while it works: a live panel on a terminal, plain lines anywhere else.

`screen.open_display` chooses the display. Nothing here measures or decides: a Snapshot comes in,
text goes out. Texts are never read as rich markup, since paths and messages may hold brackets.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 5.0
"""The least time between two lines of numbers of a `PlainDisplay`."""
_REFRESHES_PER_SECOND = 4
_BAR_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is."""

    done: int
    """Trajectories that are finished, in earlier sessions too."""
    total: int
    """Trajectories that this process is to make, in all sessions."""
    tokens: int
    """Tokens that the engines have decided in this session."""
    tokens_per_s: float
    """Tokens of this session per second since the first pair was ready."""
    interventions: int
    """Interventions in all finished trajectories."""
    effective: int
    """Those of them that changed the token."""
    graded: int
    """Trajectories that are graded."""
    correct: int
    """Those of them whose answer is correct."""
    elapsed_s: float
    """Seconds since this session began."""
    eta_s: float | None
    """Seconds that the rest will take; None while that is unknown."""
    gpu_hours: float | None = None
    """GPU hours of this session to its end; None without GPUs, or while that is unknown."""


class Display(ABC):
    """Where a run reports its progress, inside a `with` block."""

    @abstractmethod
    def stage(self, text: str) -> None:
        """Show what the run does now, such as "loading base and rl"."""

    @abstractmethod
    def update(self, snapshot: Snapshot) -> None:
        """Show how far the run is; may be called more often than the display draws."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Show a line that stays on the screen, such as that a pair was restarted."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Show the last snapshot and leave the terminal as it was."""


class LiveDisplay(Display):
    """The stage, a progress bar and the numbers, redrawn in place; notes scroll by above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = Spinner("line")
        self._snapshot: Snapshot | None = None
        self._running = True
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=_REFRESHES_PER_SECOND
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def stage(self, text: str) -> None:
        self._stage.update(text=Text(collapse_whitespace(text), overflow="ellipsis", no_wrap=True))

    def update(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def note(self, text: str) -> None:
        self._console.print(Text(collapse_whitespace(text)))

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._live.stop()

    def _draw(self) -> RenderableType:
        rows = Table.grid()
        if self._running:
            rows.add_row(self._stage)
        if self._snapshot is not None and self._snapshot.tokens + self._snapshot.done:
            width = min(_BAR_WIDTH, self._console.width)
            rows.add_row(
                ProgressBar(max(self._snapshot.total, 1), self._snapshot.done, width=width)
            )
            rows.add_row(Text("  ".join(facts(self._snapshot))))
        return rows


class PlainDisplay(Display):
    """Lines for a log file: stages and notes at once, numbers at most every `PLAIN_SECONDS`.

    The last numbers are always shown.

    Args:
        stream: Where the lines go.
        clock: Seconds from any start; tests give their own.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next_s = -float("inf")
        self._pending: Snapshot | None = None
        self._stage = ""

    def stage(self, text: str) -> None:
        self._stage = text
        self._write(text)

    def update(self, snapshot: Snapshot) -> None:
        self._pending = snapshot
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + PLAIN_SECONDS
            self._flush()

    def note(self, text: str) -> None:
        self._write(text)

    def __exit__(self, *_: object) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            snapshot, self._pending = self._pending, None
            if snapshot.tokens == 0 and snapshot.done < snapshot.total:
                self._write(f"still {self._stage}, {duration(snapshot.elapsed_s)}")
            else:
                self._write(", ".join(facts(snapshot)))

    def _write(self, text: str) -> None:
        print(collapse_whitespace(text), file=self._stream, flush=True)


def facts(snapshot: Snapshot) -> list[str]:
    """The numbers of a snapshot, each with its name or unit, in the order of display."""
    texts = [
        f"{snapshot.done:,}/{snapshot.total:,} sequences",
        f"{snapshot.tokens_per_s:,.0f} tokens/s",
        f"{snapshot.interventions:,} interventions ({snapshot.effective:,} effective)",
    ]
    if snapshot.graded:
        texts.append(
            f"accuracy {snapshot.correct / snapshot.graded:.1%} of {snapshot.graded:,} graded"
        )
    texts.append(f"{duration(snapshot.elapsed_s)} elapsed")
    if snapshot.eta_s is not None and snapshot.done < snapshot.total:
        texts.append(f"ETA {duration(snapshot.eta_s)}")
    if snapshot.gpu_hours is not None:
        texts.append(f"{snapshot.gpu_hours:,.1f} GPU hours in all")
    return texts


def duration(seconds: float) -> str:
    """Seconds as m:ss, or as h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def collapse_whitespace(text: str) -> str:
    """Text on one line: every run of white space, line ends included, becomes one space."""
    return " ".join(text.split())
