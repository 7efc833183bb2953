"""Evolution over checkpoints: JS divergence by step, and the high-divergence positions shared with
the last one.
"""

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
from evaluators.figures.series import Series, known, split
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
    """Percentiles and mean of JS divergence against the training step, log from 0, a panel a
    direction.
    """
    series = _by_direction(known(table, "mean"))
    if not series:
        return None
    figure, grid = panels(1, len(series), 3.1)
    shown = np.concatenate([one.floats(level) for one in series for level in LEVELS])
    places = _places(series)
    for axes, one in zip(grid[0], series, strict=True):
        for level in LEVELS:
            draw_line(axes, _x(one, places), one.floats(level), **_looks(level))
        ticks.js_axis(axes, "y", shown)
        if len(series) > 1:
            label_panel(axes, one.direction)
    _step_axis(grid[0, 0], places, len(series))
    label_axes(figure, "training step", "JS divergence (nats)")
    legend.add(
        figure, [Line2D([], [], label=label, **_looks(level)) for level, label in LEVELS.items()]
    )
    return figure


@with_style
def high_overlap(table: pa.Table) -> Figure | None:
    """Jaccard overlap of the high-divergence positions of each checkpoint with those of the last,
    against the step.
    """
    series = _by_direction(known(table, "jaccard"))
    if not series:
        return None
    figure, grid = panels(1, 1, 2.7)
    axes, places = grid[0, 0], _places(series)
    for one in series:
        draw_line(axes, _x(one, places), one.floats("jaccard"), marker=one.marker, **one.looks)
    _step_axis(axes, places, 1)
    ticks.linear_axis(axes, "y", 0, 1)
    axes.set(xlabel="training step", ylabel="Jaccard overlap with the last (0 to 1)")
    legend.add(figure, legend.of_series(series, markers=True))
    return figure


def _by_direction(table: pa.Table) -> list[Series]:
    """A series a direction, whose points are the runs in the order of steps."""
    rows = table.drop_columns(["run"]) if "run" in table.column_names else table
    return split(rows.sort_by("step") if "step" in rows.column_names else rows)


def _places(series: Sequence[Series]) -> dict[Checkpoint, float]:
    """Where each checkpoint is along x: at its step, or one after the other where steps are unknown
    or not unique.
    """
    checkpoints = list(
        dict.fromkeys(checkpoint for one in series for checkpoint in _checkpoints(one))
    )
    steps = [step for step, _ in checkpoints]
    is_scale = None not in steps and len(set(steps)) == len(steps)
    return {
        found: float(found[0] or 0) if is_scale else float(place)
        for place, found in enumerate(checkpoints)
    }


def _checkpoints(one: Series) -> list[Checkpoint]:
    return list(zip(one.rows["step"].to_pylist(), one.rows["label"].to_pylist(), strict=True))


def _x(one: Series, places: dict[Checkpoint, float]) -> Floats:
    return np.array([places[checkpoint] for checkpoint in _checkpoints(one)])


def _step_axis(axes: Axes, places: dict[Checkpoint, float], num_panels: int) -> None:
    """The steps, or else the labels of the checkpoints."""
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
