"""Figures of accuracy: against the budget, and against the share of replaced tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.arrays import Floats
from engine.core import budget_order
from evaluators.figures import legend, text, ticks
from evaluators.figures.series import Series, by_direction, finite_rows, floats, names, split, where
from evaluators.figures.style import (
    CONTROL_COLOUR,
    GUIDE_COLOUR,
    WIDTH,
    LineStyle,
    draw_line,
    label_panel,
    panels,
    with_style,
)

# The policy that samples every token where the budget is 0.
POLICY_ALONE = {"forward": "base alone", "reverse": "RL alone"}
_REFERENCE_LINES: dict[str, LineStyle] = {"forward": (0, (1, 1.5)), "reverse": (0, (7, 2, 1, 2))}
_CONTROL_LINE: LineStyle = (0, (1, 1.2))
_CONTROL_MARKERS = "xD*P"
# Up to this many lines stand side by side at a budget at full distance; more stand closer, so that
# they do not reach the next budget.
_MAX_BESIDE = 4


@dataclass(frozen=True, slots=True)
class _Arms:
    """The arms of a series as one line."""

    series: Series
    """In the order of budgets."""
    x: Floats
    """Position of each arm along the x axis."""
    looks: dict[str, Any]
    """Colour, line style and marker, as keyword arguments of matplotlib."""


@with_style
def by_budget(accuracy: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Accuracy against the budget with 95 % intervals, one panel per direction.

    Flat lines are the two policies alone. Budgets are at log2(1 + budget), unlimited at the right
    end; control runs are grey.
    """
    table = finite_rows(_without_given(accuracy), "accuracy")
    if not table.num_rows:
        return None
    places = budget_places(table["budget"].to_pylist())
    distance = 0.012 * (max(places.values()) - min(places.values()))

    def x_of(series: Series, offset: float) -> Floats:
        # Series stand side by side, so that their intervals do not overlap.
        budgets = series.rows["budget"].to_pylist()
        return np.array([places[budget] for budget in budgets]) + offset * distance

    figure = _draw(table, runs, x_of)
    labels = {place: "∞" if budget is None else str(budget) for budget, place in places.items()}
    for axes in figure.axes:
        ticks.labelled_axis(axes, labels, WIDTH * 0.85 / len(figure.axes))
        axes.set_xlabel("budget (interventions per response)")
    return figure


@with_style
def by_share(accuracy: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Accuracy against the share of tokens replaced, one panel per direction.

    A token is replaced by an effective intervention. The axis of shares is logarithmic, with 0.
    """
    table = finite_rows(_without_given(accuracy), "accuracy", "effective_share")
    if not table.num_rows:
        return None
    figure = _draw(table, runs, lambda series, _: 100 * series.floats("effective_share"))
    low, high = ticks.decades(100 * floats(table, "effective_share"))
    for axes in figure.axes:
        ticks.log_axis_with_zero(axes, "x", low, high)
        axes.set_xlim(-0.12 * low, high)
        axes.set_xlabel("tokens replaced (effective, %)")
    return figure


def budget_places(budgets: Sequence[int | None]) -> dict[int | None, float]:
    """The position of each budget on the axis.

    log2(1 + budget); the unlimited budget (None) is a step to the right of the largest.
    """
    finite = sorted({budget for budget in budgets if budget is not None})
    places: dict[int | None, float] = {budget: log2(1 + budget) for budget in finite}
    if None in budgets:
        right = max(places.values(), default=0.0)
        places[None] = right + max(1.0, 0.14 * right)
    return places


def control_runs(accuracy: pa.Table) -> set[str]:
    """The runs that intervene at random positions."""
    return {series.run for series in split(accuracy) if any(series.rows["control"].to_pylist())}


def _without_given(accuracy: pa.Table) -> pa.Table:
    """The arms that the run sampled itself.

    The accuracy of responses from elsewhere says nothing about the run's policies.
    """
    return where(accuracy, given=False)


def _draw(table: pa.Table, runs: Sequence[str], x_of: Callable[[Series, float], Floats]) -> Figure:
    """One panel per direction.

    Args:
        table: Rows with a known accuracy.
        runs: The order of the runs.
        x_of: From a series and its offset to the positions of its arms along the x axis.
    """
    all_series = split(table.take(pa.array(_budget_order(table))), runs)
    groups = by_direction(all_series)
    figure, axes = panels(1, len(groups), 3.0)
    controls = sorted(control_runs(table), key=names(all_series).index)
    policies = [
        series
        for series in all_series
        if series.run not in controls and series.direction in POLICY_ALONE
    ]
    for panel, (direction, members) in zip(axes[0], groups, strict=True):
        _references(panel, policies)
        for place, series in enumerate(members):
            offset = (place - (len(members) - 1) / 2) * min(1.0, _MAX_BESIDE / len(members))
            _line(panel, _arms(series, x_of(series, offset), controls))
        if len(groups) > 1:
            label_panel(panel, direction)
    axes[0, 0].set_ylabel("accuracy (%)")
    _accuracy_axis(axes[0, 0], table)
    legend.add(figure, _entries(all_series, controls, policies))
    return figure


def _arms(series: Series, x: Floats, controls: list[str]) -> _Arms:
    if series.run not in controls:
        return _Arms(series, x, series.looks | {"marker": series.marker})
    marker = _CONTROL_MARKERS[controls.index(series.run) % len(_CONTROL_MARKERS)]
    return _Arms(series, x, {"color": CONTROL_COLOUR, "linestyle": _CONTROL_LINE, "marker": marker})


def _line(axes: Axes, arms: _Arms) -> None:
    """The means, joined in the order of budgets, with their intervals."""
    mean, low, high = (100 * arms.series.floats(column) for column in ("accuracy", "low", "high"))
    axes.vlines(arms.x, low, high, color=arms.looks["color"], linewidth=1, alpha=0.6)
    draw_line(axes, arms.x, mean, **arms.looks)


def _references(axes: Axes, policies: list[Series]) -> None:
    """A flat line at each accuracy without interventions; grey where several runs share it."""
    for direction in POLICY_ALONE:
        heights = [
            (series, float(alone[0]))
            for series in policies
            if series.direction == direction and (alone := _alone(series)).size
        ]
        for height in dict.fromkeys(height for _, height in heights):
            sharing = {series.colour for series, other in heights if other == height}
            colour = sharing.pop() if len(sharing) == 1 and len(heights) > 1 else GUIDE_COLOUR
            axes.axhline(
                height,
                color=colour,
                linewidth=0.9,
                linestyle=_REFERENCE_LINES[direction],
                zorder=1.5,
            )


def _alone(series: Series) -> Floats:
    """Accuracy of the primary policy alone in %: [1], or [0] where it is unknown."""
    return np.asarray(100 * series.where(budget=0).floats("accuracy")[:1])


def _entries(
    all_series: list[Series], controls: list[str], policies: list[Series]
) -> list[legend.Entry]:
    colour = {series.run: series.colour for series in all_series if series.run not in controls}
    entries: list[legend.Entry] = (
        [*legend.of_runs(colour)] if len(colour) + len(controls) > 1 else []
    )
    for run in controls:
        looks = _arms(
            next(series for series in all_series if series.run == run), np.zeros(0), controls
        ).looks
        entries.append(Line2D([], [], label=f"{text.name(run)} (random control)", **looks))
    for direction, label in POLICY_ALONE.items():
        if any(series.direction == direction and _alone(series).size for series in policies):
            line = _REFERENCE_LINES[direction]
            entries.append(
                Line2D([], [], color=GUIDE_COLOUR, linestyle=line, linewidth=0.9, label=label)
            )
    return entries


def _accuracy_axis(axes: Axes, table: pa.Table) -> None:
    """From just below the lowest interval to just above the highest, within 0 to 100 %."""
    ends = 100 * np.concatenate([floats(table, column) for column in ("accuracy", "low", "high")])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    margin = max(1.0, 0.06 * (high - low))
    ticks.linear_axis(axes, "y", max(0.0, low - margin), min(100.0, high + margin))


def _budget_order(table: pa.Table) -> list[int]:
    """Indices of the rows in the order of budgets, unlimited last."""
    budgets = [budget_order(budget) for budget in table["budget"].to_pylist()]
    return sorted(range(len(budgets)), key=budgets.__getitem__)
