"""A figure of robustness: near-zero and high divergence under other truncations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.figures import legend, text, ticks
from evaluators.figures.series import Series, by_direction, finite_rows, split
from evaluators.figures.style import GUIDE_COLOUR, label_panel, panels, with_style
from evaluators.shifts.robustness import BOUND, EXACT, MEASURED

# A lower bound of JS gives too high a near-zero share and too low a high share: the markers point
# towards the true share.
COLUMNS = {
    "near_zero": (f"positions with JS ≤ {NEAR_ZERO:g} nats (%)", "<"),
    "high": (f"positions with JS > {HIGH_DIVERGENCE:g} nats (%)", ">"),
}
SOURCES = {  # marker, its face colour if it is hollow, and its label in the legend
    MEASURED: ("o", "", "measured"),
    EXACT: ("o", "white", "from stored data, exact"),
    BOUND: (">", "white", "from stored data, a bound that points to the true share"),
}


@with_style
def truncations(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Shares of near-zero and of high JS divergence, one row per truncation.

    Hollow markers are computed from stored data. A triangle is a bound and points towards the true
    share.
    """
    all_series = split(finite_rows(table, "near_zero", "high"), runs)
    if not all_series:
        return None
    rows = list(
        dict.fromkeys(row for series in all_series for row in series.rows["truncation"].to_pylist())
    )
    groups = by_direction(all_series)
    max_members = max(len(members) for _, members in groups)
    figure, grid = panels(
        len(groups), 2, 0.55 + len(rows) * max(0.26, 0.13 * max_members), share_x=False
    )
    for axes_of_row, (direction, members) in zip(grid, groups, strict=True):
        for axes, column in zip(axes_of_row, COLUMNS, strict=True):
            for place, series in enumerate(members):
                offset = (place - (len(members) - 1) / 2) * min(0.2, 0.8 / max_members)
                _dots(
                    axes,
                    series,
                    column,
                    [rows.index(row) + offset for row in series.rows["truncation"].to_pylist()],
                )
            axes.set_xlabel(COLUMNS[column][0])
        if len(groups) > 1:
            label_panel(axes_of_row[0], direction)
    grid[0, 0].set_yticks(range(len(rows)), [text.name(row, 36) for row in rows])
    grid[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    for column in grid.T:
        _same_scale(list(column))
    legend.add(figure, _entries(all_series))
    return figure


def _dots(axes: Axes, series: Series, column: str, heights: list[float]) -> None:
    for share, height, source in zip(
        series.floats(column), heights, series.rows["source"].to_pylist(), strict=True
    ):
        marker = COLUMNS[column][1] if source == BOUND else "o"
        face = series.colour if source == MEASURED else "white"
        axes.plot(
            100 * share,
            height,
            marker,
            color=series.colour,
            markerfacecolor=face,
            markersize=6,
            clip_on=False,
            zorder=3,
        )


def _same_scale(column: list[Axes]) -> None:
    """Set the same scale for a column of panels: around all its shares, within 0 to 100 %."""
    shares = np.concatenate(
        [np.asarray(line.get_xdata(), float) for axes in column for line in axes.lines]
    )
    low, high = float(shares.min()), float(shares.max())
    margin = max(1.0, 0.08 * (high - low))
    for axes in column:
        ticks.linear_axis(axes, "x", max(0.0, low - margin), min(100.0, high + margin))


def _entries(all_series: Sequence[Series]) -> list[legend.Entry]:
    colour = {series.run: series.colour for series in all_series}
    own = all_series[0].colour if len(colour) == 1 else GUIDE_COLOUR
    present = {source for series in all_series for source in series.rows["source"].to_pylist()}
    entries: list[legend.Entry] = [*legend.of_runs(colour)] if len(colour) > 1 else []
    for source, (marker, face, label) in SOURCES.items():
        if source in present:
            looks: dict[str, Any] = {
                "color": own,
                "marker": marker,
                "markerfacecolor": face or own,
                "markersize": 6,
            }
            entries.append(Line2D([], [], linestyle="", label=label, **looks))
    return entries
