"""JS divergence along a response: against t / length, from its first token to its last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from engine.arrays import Floats
from evaluators.figures import legend, ticks
from evaluators.figures.series import Series, floats, known, names, split
from evaluators.figures.style import (
    GUIDE_COLOUR,
    draw_line,
    label_axes,
    label_panel,
    panels,
    small_multiples,
    with_style,
)

POSITION_LABEL = "position in the response (% of its length)"
_MEAN: dict[str, Any] = {"color": "black", "linestyle": (0, (4, 1.5)), "linewidth": 1.3}
_WIDE, _NARROW = 0.18, 0.3  # opacity of the bands
_PERCENTILES = ("p5", "p25", "median", "p75", "p95")


@with_style
def means(js_by_position: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Mean JS divergence against normalised position, all runs and directions in one panel."""
    series = split(known(js_by_position, "start", "stop", "mean"), runs)
    if not series:
        return None
    figure, grid = panels(1, 1, 2.9)
    axes = grid[0, 0]
    for one in series:
        draw_line(axes, _middle(one), one.floats("mean"), **one.looks)
    top = max(float(one.floats("mean").max()) for one in series)
    ticks.linear_axis(axes, "x", 0, 100)
    ticks.linear_axis(axes, "y", 0, 1.06 * top or 0.1)
    axes.set(xlabel=POSITION_LABEL, ylabel="mean JS divergence (nats)")
    legend.add(figure, legend.of_series(series))
    return figure


@with_style
def bands(js_by_position: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Mean, median and percentile bands of JS divergence against normalised position, a panel a run
    and direction.
    """
    table = known(js_by_position, "start", "stop", "mean", *_PERCENTILES)
    series = split(table, runs)
    if not series:
        return None
    figure, panels_ = small_multiples(len(series), 2.9 if len(series) < 3 else 1.9)
    shown = np.concatenate([floats(table, name) for name in ("mean", *_PERCENTILES)])
    for axes, one in zip(panels_, series, strict=True):
        _bands(axes, one)
        ticks.js_axis(axes, "y", shown)
        ticks.linear_axis(axes, "x", 0, 100)
        if len(series) > 1:
            label_panel(axes, one.label, one.colour)
    label_axes(figure, POSITION_LABEL, "JS divergence (nats)")
    legend.add(figure, _entries(series[0].colour if len(names(series)) == 1 else GUIDE_COLOUR))
    return figure


def _bands(axes: Axes, one: Series) -> None:
    x = _middle(one)
    p5, p25, median, p75, p95 = (one.floats(name) for name in _PERCENTILES)
    wide = (
        x if len(x) > 1 else np.array([x[0] - 1, x[0] + 1])
    )  # one bin is a point, and its bands need a width
    for low, high, alpha in ((p5, p95, _WIDE), (p25, p75, _NARROW)):
        axes.fill_between(
            wide,
            np.resize(low, len(wide)),
            np.resize(high, len(wide)),
            color=one.colour,
            alpha=alpha,
            linewidth=0,
        )
    draw_line(axes, x, median, color=one.colour)
    draw_line(axes, x, one.floats("mean"), **_MEAN)


def _entries(colour: str) -> list[Artist]:
    return [
        Line2D([], [], label="mean", **_MEAN),
        Line2D([], [], color=colour, label="median"),
        Patch(
            facecolor=colour, alpha=_NARROW + _WIDE, linewidth=0, label="25th to 75th percentile"
        ),
        Patch(facecolor=colour, alpha=_WIDE, linewidth=0, label="5th to 95th percentile"),
    ]


def _middle(one: Series) -> Floats:
    """The middles of the bins, in % of the length."""
    return np.asarray(50 * (one.floats("start") + one.floats("stop")))
