"""The legend of a figure, above the data: runs are colours; directions are line styles, marks, and
hatches of bars.
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
    series: Sequence[Series], *, markers: bool = False, bars: bool = False
) -> list[Entry]:
    """An entry a run where there are several, and an entry a direction where there are several."""
    colour = {one.run: one.colour for one in series}
    ways = directions(series)
    own = series[0].colour if len(colour) == 1 else GUIDE_COLOUR
    entries: list[Entry] = [*of_runs(colour)] if len(colour) > 1 else []
    for way in ways if len(ways) > 1 else []:
        line, marker = LINE_STYLES.get(way, "-"), MARKERS.get(way, "o") if markers else ""
        drawn = Line2D([], [], color=own, linestyle=line, marker=marker, label=text.name(way))
        bar = Patch(label=text.name(way), **bar_looks(own, HATCHES.get(way, "")))
        entries.append((bar, drawn) if bars else drawn)
    return entries


def of_runs(colour: dict[str, str]) -> list[Artist]:
    """An entry a run, in its colour."""
    return [
        Line2D([], [], color=shade, linewidth=3, label=text.name(run))
        for run, shade in colour.items()
    ]


def add(figure: Figure, entries: Sequence[Entry]) -> None:
    """The entries above the axes from the left, in one line or in columns; the figure grows by
    their height.
    """
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
    """As many as there is room for; entries fill one column after the other, each as wide as its
    widest.
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
    return ceil(len(labels) / num_lines)  # even columns


def width(figure: Figure, label: str, size: float) -> float:
    """How wide a text is, in points."""
    font = FontProperties(family=matplotlib.rcParams["font.family"], size=size)
    measure = renderer(figure).get_text_width_height_descent
    pixels, _, _ = measure(label, font, ismath=False)  # type: ignore[no-untyped-call]
    return float(pixels) * 72 / figure.dpi
