"""What a run says while it works: a live panel on a terminal, plain lines anywhere else.

`screen.open_display` picks one. Nothing here measures or decides: a Snapshot comes in, text goes
out. Texts are never read as rich markup, since model paths and messages may hold brackets.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 5.0
_REFRESHES_PER_SECOND = 4
_BAR_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is. done, total: trajectories; interventions, effective: tokens, of all
    trajectories so far.
    """

    done: int
    total: int
    tokens: int
    tokens_per_s: float
    interventions: int
    effective: int
    graded: int
    correct: int
    elapsed_s: float
    eta_s: float | None


class Display(ABC):
    """Where a run reports; use it in a `with` block."""

    @abstractmethod
    def stage(self, text: str) -> None:
        """What is being done now, such as "loading base and rl"."""

    @abstractmethod
    def update(self, snapshot: Snapshot) -> None:
        """How far the run is. May be called often: what is drawn is limited here."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Something to keep on the screen, such as a pair that was restarted."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the last snapshot and leave the terminal as it was."""


class LiveDisplay(Display):
    """The stage, a bar and the numbers, redrawn in place; notes scroll by above them."""

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
        self._stage.update(text=Text(_one_line(text), overflow="ellipsis", no_wrap=True))

    def update(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def note(self, text: str) -> None:
        self._console.print(Text(_one_line(text)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    """Lines for logs: stages and notes at once, numbers at most every PLAIN_SECONDS, and always the
    last.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            waiting = self._pending.tokens == 0 and self._pending.done < self._pending.total
            still = f"still {self._stage}, {duration(self._pending.elapsed_s)}"
            self._write(still if waiting else ", ".join(facts(self._pending)))
            self._pending = None

    def _write(self, text: str) -> None:
        print(_one_line(text), file=self._stream, flush=True)


def facts(snapshot: Snapshot) -> list[str]:
    """The numbers of a snapshot, each with its name or unit, in the order in which they are
    shown.
    """
    found = [
        f"{snapshot.done:,}/{snapshot.total:,} sequences",
        f"{snapshot.tokens_per_s:,.0f} tokens/s",
        f"{snapshot.interventions:,} interventions ({snapshot.effective:,} effective)",
    ]
    if snapshot.graded:
        found.append(
            f"accuracy {snapshot.correct / snapshot.graded:.1%} of {snapshot.graded:,} graded"
        )
    found.append(f"{duration(snapshot.elapsed_s)} elapsed")
    if snapshot.eta_s is not None and snapshot.done < snapshot.total:
        found.append(f"ETA {duration(snapshot.eta_s)}")
    return found


def duration(seconds: float) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
