"""The legend of a figure, above the data.

Runs are colours; directions are line styles, markers, and hatches of bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from evaluators.figures import text
from evaluators.figures.series import Series, directions
from evaluators.figures.style import (
    GUIDE_COLOUR,
    HATCHES,
    LINE_STYLES,
    MARKERS,
    bar_looks,
    renderer,
)

Entry = Artist | tuple[Artist, ...]
_HANDLE = 40.0  # points that a handle and the space after an entry take
_LINE = 0.17  # inches


def of_series(
    all_series: Sequence[Series], *, markers: bool = False, bars: bool = False
) -> list[Entry]:
    """One entry per run if there are several, and one per direction if there are several.

    Args:
        all_series: What the figure shows.
        markers: Whether its lines have markers.
        bars: Whether it shows bars besides lines.
    """
    colour = {series.run: series.colour for series in all_series}
    shown_directions = directions(all_series)
    own = all_series[0].colour if len(colour) == 1 else GUIDE_COLOUR
    entries: list[Entry] = [*of_runs(colour)] if len(colour) > 1 else []
    for direction in shown_directions if len(shown_directions) > 1 else []:
        label, line_style = text.name(direction), LINE_STYLES.get(direction, "-")
        marker = MARKERS.get(direction, "o") if markers else ""
        line = Line2D([], [], color=own, linestyle=line_style, marker=marker, label=label)
        bar = Patch(label=label, **bar_looks(own, HATCHES.get(direction, "")))
        entries.append((bar, line) if bars else line)
    return entries


def of_runs(colour: dict[str, str]) -> list[Artist]:
    """One entry per run, in its colour."""
    return [
        Line2D([], [], color=shade, linewidth=3, label=text.name(run))
        for run, shade in colour.items()
    ]


def add(figure: Figure, entries: Sequence[Entry]) -> None:
    """Add the entries above the axes, from the left; the figure grows by their height."""
    if not entries:
        return
    labels = [
        str((entry[0] if isinstance(entry, tuple) else entry).get_label()) for entry in entries
    ]
    columns = _columns(figure, labels)
    figure.set_figheight(figure.get_figheight() + _LINE * ceil(len(labels) / columns) + 0.06)
    sides: dict[type, HandlerTuple] = {tuple: HandlerTuple(ndivide=None)}
    handles: list[Any] = list(entries)  # a tuple of handles, too, which the types do not know
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handler_map=sides)


def _columns(figure: Figure, labels: Sequence[str]) -> int:
    """As many columns as fit, each as wide as its widest entry.

    Entries fill one column after the other.
    """
    size = float(matplotlib.rcParams["legend.fontsize"])
    widths = [_HANDLE + width(figure, label, size) for label in labels]
    room = figure.get_figwidth() * 72 - 10
    fitting = (
        n
        for n in range(len(labels), 1, -1)
        if sum(part.max() for part in np.array_split(widths, n)) <= room
    )
    num_lines = ceil(len(labels) / next(fitting, 1))
    return ceil(len(labels) / num_lines)  # columns of equal length


def width(figure: Figure, label: str, size: float) -> float:
    """The width of a text, in points."""
    font = FontProperties(family=matplotlib.rcParams["font.family"], size=size)
    measure = renderer(figure).get_text_width_height_descent
    pixels, _, _ = measure(label, font, ismath=False)  # type: ignore[no-untyped-call]
    return float(pixels) * 72 / figure.dpi
