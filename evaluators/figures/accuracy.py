"""Accuracy against the budget of interventions, and against the share of tokens that they
replaced.
"""

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
from evaluators.figures.series import Series, by_direction, floats, known, names, split, where
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

POLICY_ALONE = {
    "forward": "base alone",
    "reverse": "RL alone",
}  # who writes every token where the budget is 0
_REFERENCE_LINES: dict[str, LineStyle] = {"forward": (0, (1, 1.5)), "reverse": (0, (7, 2, 1, 2))}
_CONTROL_LINE: LineStyle = (0, (1, 1.2))
_CONTROL_MARKERS = "xD*P"
_MAX_BESIDE = (
    4  # lines that stand beside one another at a budget; more stand closer, or they would leave it
)


@dataclass(frozen=True, slots=True)
class _Arms:
    """The arms of a series in the order of budgets: where they are along x, and how their line
    looks.
    """

    series: Series
    x: Floats
    looks: dict[str, Any]


@with_style
def by_budget(accuracy: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Accuracy against the budget with 95 % intervals, a panel a direction; flat lines are the two
    policies alone.

    Budgets are at log2(1 + budget), unlimited at the right end; control runs are grey.
    """
    table = known(_made(accuracy), "accuracy")
    if not table.num_rows:
        return None
    places = budget_places(table["budget"].to_pylist())
    room = 0.012 * (max(places.values()) - min(places.values()))

    def across(
        one: Series, place: float
    ) -> Floats:  # beside one another, so that intervals do not overlap
        return (
            np.array([places[budget] for budget in one.rows["budget"].to_pylist()]) + place * room
        )

    figure = _draw(table, runs, across)
    labels = {place: "∞" if budget is None else str(budget) for budget, place in places.items()}
    for axes in figure.axes:
        ticks.labelled_axis(axes, labels, WIDTH * 0.85 / len(figure.axes))
        axes.set_xlabel("budget (interventions a response)")
    return figure


@with_style
def by_share(accuracy: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Accuracy against the share of tokens that effective interventions replaced, a panel a
    direction; log from 0.
    """
    table = known(_made(accuracy), "accuracy", "effective_share")
    if not table.num_rows:
        return None
    figure = _draw(table, runs, lambda one, _: 100 * one.floats("effective_share"))
    low, high = ticks.decades(100 * floats(table, "effective_share"))
    for axes in figure.axes:
        ticks.log_axis_with_zero(axes, "x", low, high)
        axes.set_xlim(-0.12 * low, high)
        axes.set_xlabel("tokens replaced (effective, %)")
    return figure


def budget_places(budgets: Sequence[int | None]) -> dict[int | None, float]:
    """Where each budget is on the axis: log2(1 + budget), and None, the unlimited one, a step to
    the right.
    """
    finite = sorted({budget for budget in budgets if budget is not None})
    places: dict[int | None, float] = {budget: log2(1 + budget) for budget in finite}
    if None in budgets:
        right = max(places.values(), default=0.0)
        places[None] = right + max(1.0, 0.14 * right)
    return places


def control_runs(accuracy: pa.Table) -> set[str]:
    """The runs whose interventions come at random positions."""
    return {one.run for one in split(accuracy) if any(one.rows["control"].to_pylist())}


def _made(accuracy: pa.Table) -> pa.Table:
    """Without arms whose responses were given: that these are right says nothing of the run's
    policies.
    """
    return where(accuracy, given=False)


def _draw(
    table: pa.Table, runs: Sequence[str], across: Callable[[Series, float], Floats]
) -> Figure:
    """A panel a direction; `across` gives where the arms of a series are along the x axis."""
    series = split(table.take(pa.array(_rising(table))), runs)
    groups = by_direction(series)
    figure, axes = panels(1, len(groups), 3.0)
    controls = sorted(control_runs(table), key=names(series).index)
    policies = [one for one in series if one.run not in controls and one.direction in POLICY_ALONE]
    for one_axes, (direction, members) in zip(axes[0], groups, strict=True):
        _references(one_axes, policies)
        for place, one in enumerate(members):
            beside = (place - (len(members) - 1) / 2) * min(1.0, _MAX_BESIDE / len(members))
            _line(one_axes, _arms(one, across(one, beside), controls))
        if len(groups) > 1:
            label_panel(one_axes, direction)
    axes[0, 0].set_ylabel("accuracy (%)")
    _accuracy_axis(axes[0, 0], table)
    legend.add(figure, _entries(series, controls, policies))
    return figure


def _arms(one: Series, x: Floats, controls: list[str]) -> _Arms:
    if one.run not in controls:
        return _Arms(one, x, one.looks | {"marker": one.marker})
    marker = _CONTROL_MARKERS[controls.index(one.run) % len(_CONTROL_MARKERS)]
    return _Arms(one, x, {"color": CONTROL_COLOUR, "linestyle": _CONTROL_LINE, "marker": marker})


def _line(axes: Axes, arms: _Arms) -> None:
    """Means joined in the order of budgets, with intervals."""
    mean, low, high = (100 * arms.series.floats(column) for column in ("accuracy", "low", "high"))
    axes.vlines(arms.x, low, high, color=arms.looks["color"], linewidth=1, alpha=0.6)
    draw_line(axes, arms.x, mean, **arms.looks)


def _references(axes: Axes, policies: list[Series]) -> None:
    """A flat line at each accuracy without interventions, grey where runs share it."""
    for direction in POLICY_ALONE:
        found = [
            (one, float(alone[0]))
            for one in policies
            if one.direction == direction and (alone := _alone(one)).size
        ]
        for height in dict.fromkeys(height for _, height in found):
            sharing = {one.colour for one, other in found if other == height}
            colour = sharing.pop() if len(sharing) == 1 and len(found) > 1 else GUIDE_COLOUR
            axes.axhline(
                height,
                color=colour,
                linewidth=0.9,
                linestyle=_REFERENCE_LINES[direction],
                zorder=1.5,
            )


def _alone(one: Series) -> Floats:
    """Accuracy of the primary policy alone [1], or nothing [0]."""
    return np.asarray(100 * one.where(budget=0).floats("accuracy")[:1])


def _entries(
    series: list[Series], controls: list[str], policies: list[Series]
) -> list[legend.Entry]:
    colour = {one.run: one.colour for one in series if one.run not in controls}
    entries: list[legend.Entry] = (
        [*legend.of_runs(colour)] if len(colour) + len(controls) > 1 else []
    )
    for run in controls:
        looks = _arms(next(one for one in series if one.run == run), np.zeros(0), controls).looks
        entries.append(Line2D([], [], label=f"{text.name(run)} (random control)", **looks))
    for direction, label in POLICY_ALONE.items():
        if any(one.direction == direction and _alone(one).size for one in policies):
            line = _REFERENCE_LINES[direction]
            entries.append(
                Line2D([], [], color=GUIDE_COLOUR, linestyle=line, linewidth=0.9, label=label)
            )
    return entries


def _accuracy_axis(axes: Axes, table: pa.Table) -> None:
    """From a little below the lowest interval to a little above the highest, within 0 and 100 %."""
    ends = 100 * np.concatenate([floats(table, column) for column in ("accuracy", "low", "high")])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    margin = max(1.0, 0.06 * (high - low))
    ticks.linear_axis(axes, "y", max(0.0, low - margin), min(100.0, high + margin))


def _rising(table: pa.Table) -> list[int]:
    """Places of the rows in the order of budgets, unlimited last."""
    budgets = [budget_order(budget) for budget in table["budget"].to_pylist()]
    return sorted(range(len(budgets)), key=budgets.__getitem__)
