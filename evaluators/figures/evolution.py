"""Figures of the evolution over checkpoints: JS by step, and overlap with the last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.arrays import Floats
from evaluators.figures import legend, text, ticks
from evaluators.figures.series import Series, finite_rows, split
from evaluators.figures.style import WIDTH, draw_line, label_axes, label_panel, panels, with_style

LEVELS = {
    "p99": "99th percentile",
    "p95": "95th",
    "p90": "90th",
    "p75": "75th",
    "median": "median",
    "mean": "mean",
}
_MAX_LABEL = 16
_MARKERS = dict(zip(LEVELS, "ovs^Dx", strict=True))


Checkpoint = tuple[int | None, str | None]  # step and label


@with_style
def js_by_step(table: pa.Table) -> Figure | None:
    """Percentiles and mean of JS divergence against the training step, one panel per direction.

    The axis of JS is logarithmic, with 0.
    """
    all_series = _by_direction(finite_rows(table, "mean"))
    if not all_series:
        return None
    figure, grid = panels(1, len(all_series), 3.1)
    shown = np.concatenate([series.floats(level) for series in all_series for level in LEVELS])
    places = _places(all_series)
    for axes, series in zip(grid[0], all_series, strict=True):
        for level in LEVELS:
            draw_line(axes, _x(series, places), series.floats(level), **_looks(level))
        ticks.js_axis(axes, "y", shown)
        if len(all_series) > 1:
            label_panel(axes, series.direction)
    _step_axis(grid[0, 0], places, len(all_series))
    label_axes(figure, "training step", "JS divergence (nats)")
    legend.add(
        figure, [Line2D([], [], label=label, **_looks(level)) for level, label in LEVELS.items()]
    )
    return figure


@with_style
def high_overlap(table: pa.Table) -> Figure | None:
    """Jaccard overlap of each checkpoint's high-divergence positions with those of the last."""
    all_series = _by_direction(finite_rows(table, "jaccard"))
    if not all_series:
        return None
    figure, grid = panels(1, 1, 2.7)
    axes, places = grid[0, 0], _places(all_series)
    for series in all_series:
        draw_line(
            axes, _x(series, places), series.floats("jaccard"), marker=series.marker, **series.looks
        )
    _step_axis(axes, places, 1)
    ticks.linear_axis(axes, "y", 0, 1)
    axes.set(xlabel="training step", ylabel="Jaccard overlap with the last (0 to 1)")
    legend.add(figure, legend.of_series(all_series, markers=True))
    return figure


def _by_direction(table: pa.Table) -> list[Series]:
    """One series per direction, whose points are the runs in the order of steps."""
    rows = table.drop_columns(["run"]) if "run" in table.column_names else table
    return split(rows.sort_by("step") if "step" in rows.column_names else rows)


def _places(all_series: Sequence[Series]) -> dict[Checkpoint, float]:
    """The position of each checkpoint along x.

    At its step; one after the other where a step is unknown or not unique.
    """
    checkpoints = list(
        dict.fromkeys(checkpoint for series in all_series for checkpoint in _checkpoints(series))
    )
    steps = [step for step, _ in checkpoints]
    is_scale = None not in steps and len(set(steps)) == len(steps)
    return {
        checkpoint: float(checkpoint[0] or 0) if is_scale else float(index)
        for index, checkpoint in enumerate(checkpoints)
    }


def _checkpoints(series: Series) -> list[Checkpoint]:
    return list(zip(series.rows["step"].to_pylist(), series.rows["label"].to_pylist(), strict=True))


def _x(series: Series, places: dict[Checkpoint, float]) -> Floats:
    return np.array([places[checkpoint] for checkpoint in _checkpoints(series)])


def _step_axis(axes: Axes, places: dict[Checkpoint, float], num_panels: int) -> None:
    """Label the x axis with the steps, or else with the labels of the checkpoints."""
    at_steps = all(step == place for (step, _), place in places.items())
    labels = {
        place: str(step) if at_steps else text.name(label or "", _MAX_LABEL)
        for (step, label), place in places.items()
    }
    ticks.labelled_axis(axes, labels, WIDTH * 0.85 / num_panels)


def _looks(level: str) -> dict[str, Any]:
    """Dark for the highest percentile, lighter for lower ones, black and dashed for the mean."""
    place = list(LEVELS).index(level)
    if level == "mean":
        return {"color": "black", "linestyle": (0, (4, 1.5)), "marker": _MARKERS[level]}
    shade = matplotlib.colormaps["viridis"](0.05 + 0.18 * place)
    return {"color": to_hex(shade), "linestyle": "-", "marker": _MARKERS[level]}
