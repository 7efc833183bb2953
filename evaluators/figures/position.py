"""Figures of JS divergence along a response, against the relative position t / length."""

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
from evaluators.figures.series import Series, finite_rows, floats, names, split
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
    all_series = split(finite_rows(js_by_position, "start", "stop", "mean"), runs)
    if not all_series:
        return None
    figure, grid = panels(1, 1, 2.9)
    axes = grid[0, 0]
    for series in all_series:
        draw_line(axes, _middles(series), series.floats("mean"), **series.looks)
    top = max(float(series.floats("mean").max()) for series in all_series)
    ticks.linear_axis(axes, "x", 0, 100)
    ticks.linear_axis(axes, "y", 0, 1.06 * top or 0.1)
    axes.set(xlabel=POSITION_LABEL, ylabel="mean JS divergence (nats)")
    legend.add(figure, legend.of_series(all_series))
    return figure


@with_style
def bands(js_by_position: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Mean, median and percentile bands of JS divergence against normalised position.

    One panel per run and direction.
    """
    table = finite_rows(js_by_position, "start", "stop", "mean", *_PERCENTILES)
    all_series = split(table, runs)
    if not all_series:
        return None
    figure, panels_ = small_multiples(len(all_series), 2.9 if len(all_series) < 3 else 1.9)
    values = np.concatenate([floats(table, name) for name in ("mean", *_PERCENTILES)])
    for axes, series in zip(panels_, all_series, strict=True):
        _bands(axes, series)
        ticks.js_axis(axes, "y", values)
        ticks.linear_axis(axes, "x", 0, 100)
        if len(all_series) > 1:
            label_panel(axes, series.label, series.colour)
    label_axes(figure, POSITION_LABEL, "JS divergence (nats)")
    legend.add(
        figure, _entries(all_series[0].colour if len(names(all_series)) == 1 else GUIDE_COLOUR)
    )
    return figure


def _bands(axes: Axes, series: Series) -> None:
    x = _middles(series)
    p5, p25, median, p75, p95 = (series.floats(name) for name in _PERCENTILES)
    # A single bin is a point, but its bands need a width.
    wide = x if len(x) > 1 else np.array([x[0] - 1, x[0] + 1])
    for low, high, alpha in ((p5, p95, _WIDE), (p25, p75, _NARROW)):
        axes.fill_between(
            wide,
            np.resize(low, len(wide)),
            np.resize(high, len(wide)),
            color=series.colour,
            alpha=alpha,
            linewidth=0,
        )
    draw_line(axes, x, median, color=series.colour)
    draw_line(axes, x, series.floats("mean"), **_MEAN)


def _entries(colour: str) -> list[Artist]:
    return [
        Line2D([], [], label="mean", **_MEAN),
        Line2D([], [], color=colour, label="median"),
        Patch(
            facecolor=colour, alpha=_NARROW + _WIDE, linewidth=0, label="25th to 75th percentile"
        ),
        Patch(facecolor=colour, alpha=_WIDE, linewidth=0, label="5th to 95th percentile"),
    ]


def _middles(series: Series) -> Floats:
    """The middles of the bins, in % of the length of the response."""
    return np.asarray(50 * (series.floats("start") + series.floats("stop")))
