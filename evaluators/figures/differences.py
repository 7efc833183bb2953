"""Paired differences of accuracy as a forest plot: the arms of a run in rows, two comparisons
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.core import budget_order
from evaluators.figures import legend, text, ticks
from evaluators.figures.accuracy import control_runs
from evaluators.figures.series import Series, by_direction, known, names, split
from evaluators.figures.style import (
    CONTROL_COLOUR,
    GUIDE_COLOUR,
    label_axes,
    label_panel,
    panels,
    with_style,
)

MAX_ROWS = 48
_ROW = 0.2  # inches
_LOWEST, _CONTROL = (
    "against the direction's lowest budget",
    "against the random control at the same budget",
)
_MARKERS = {_LOWEST: "o", _CONTROL: "D"}
_OFFSETS = {_LOWEST: -0.16, _CONTROL: 0.16}
_HEADING = "heading"

Row = dict[str, Any]


@with_style
def forest(differences: pa.Table, accuracy: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Differences of accuracy on the same samples, with 95 % intervals: an arm a row, a panel a
    direction.

    An arm is compared with its direction's lowest budget, and with the random control's arm of the
    same direction and budget. Of many arms those with budgets between the lowest and the highest
    are thinned out.
    """
    controls = control_runs(accuracy)
    table = _telling(known(differences, "difference"), controls)
    series = split(table, [*runs, *names(split(accuracy))])
    if not series:
        return None
    rows = _rows(series)
    groups = by_direction(series)
    figure, grid = panels(1, len(groups), max(1.3, 0.25 + _ROW * len(rows)), share_x=False)
    for axes, (direction, members) in zip(grid[0], groups, strict=True):
        for one in members:
            _draw(axes, one, rows, CONTROL_COLOUR if one.run in controls else one.colour)
        _scale(axes)
        if len(groups) > 1:
            label_panel(axes, direction)
    _label_rows(
        grid[0, 0],
        rows,
        {one.run: CONTROL_COLOUR if one.run in controls else one.colour for one in series},
    )
    label_axes(figure, "difference of accuracy (percentage points)", "budget (interventions)")
    legend.add(figure, _entries(table))
    return figure


def _telling(differences: pa.Table, controls: set[str]) -> pa.Table:
    """The rows that are drawn, with a column `kind`; a control's differences from a run are turned
    round.
    """
    rows = (
        differences.to_pylist() if "run" in differences.column_names else _of_one_run(differences)
    )
    lowest = _lowest(rows)
    found: list[Row] = []
    for row in rows:
        run, other = row["run"], row["against_run"] or row["run"]
        if run == other and _arm_of(row, "against_") == lowest.get((run, row["direction"])):
            found.append({**row, "kind": _LOWEST})
        elif _against_control(row, run in controls, other in controls):
            found.append({**(_turned(row) if run in controls else row), "kind": _CONTROL})
    return pa.Table.from_pylist(found) if found else differences.slice(0, 0)


def _against_control(row: Row, is_control: bool, other_is: bool) -> bool:
    """The same arm with and without control; without interventions both are the same."""
    return (
        is_control != other_is and _arm_of(row) == _arm_of(row, "against_") and row["budget"] != 0
    )


def _of_one_run(differences: pa.Table) -> list[Row]:
    return [{**row, "run": "", "against_run": ""} for row in differences.to_pylist()]


def _lowest(rows: list[Row]) -> dict[tuple[str, str], tuple[str, int | None]]:
    """The arm of the lowest budget of each run and direction; what all others of it are compared
    with.
    """
    found: dict[tuple[str, str], tuple[str, int | None]] = {}
    for row in sorted(rows, key=lambda row: budget_order(row["against_budget"])):
        if row["direction"] == row["against_direction"] and row["against_run"] in (
            None,
            row["run"],
        ):
            found.setdefault((row["run"], row["direction"]), _arm_of(row, "against_"))
    return found


def _arm_of(row: Row, prefix: str = "") -> tuple[str, int | None]:
    return row[f"{prefix}direction"], row[f"{prefix}budget"]


def _turned(row: Row) -> Row:
    """The same comparison from the other side."""
    low, high = (None if row[bound] is None else -row[bound] for bound in ("high", "low"))
    sides = {"run": row["against_run"], "against_run": row["run"]}
    return {**row, **sides, "difference": -row["difference"], "low": low, "high": high}


def _rows(series: Sequence[Series]) -> list[tuple[str, int | str | None]]:
    """The rows from the top: of each run a heading, where runs are several, and the budgets that
    are shown, rising.
    """
    runs = names(series)
    limit = max(2, MAX_ROWS // len(runs) - 1)
    rows: list[tuple[str, int | str | None]] = []
    for run in runs:
        budgets = {
            budget for one in series if one.run == run for budget in one.rows["budget"].to_pylist()
        }
        rows += [(run, _HEADING)] if len(runs) > 1 else []
        rows += [(run, budget) for budget in _thinned(sorted(budgets, key=budget_order), limit)]
    return rows


def _thinned(budgets: list[int | None], limit: int) -> list[int | None]:
    """All, or `limit` of them, the ends among them."""
    places = np.linspace(0, len(budgets) - 1, min(limit, len(budgets))).round().astype(int)
    return [budgets[place] for place in places.tolist()]


def _draw(axes: Axes, one: Series, rows: list[tuple[str, int | str | None]], colour: str) -> None:
    """The comparisons of the arms of a series; of an arm with two one is a little above the
    other.
    """
    for row in one.rows.to_pylist():
        if (one.run, row["budget"]) not in rows:
            continue
        y = rows.index((one.run, row["budget"])) + _OFFSETS[row["kind"]]
        if row["low"] is not None and row["high"] is not None:
            axes.hlines(y, 100 * row["low"], 100 * row["high"], color=colour, linewidth=1.2)
        face = "white" if row["kind"] == _CONTROL else colour
        axes.plot(
            100 * row["difference"],
            y,
            _MARKERS[row["kind"]],
            color=colour,
            markerfacecolor=face,
            zorder=3,
        )


def _scale(axes: Axes) -> None:
    """Zero is always in it."""
    axes.axvline(0, color=GUIDE_COLOUR, linewidth=0.9)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    low, high = axes.get_xlim()
    ticks.linear_axis(axes, "x", min(low, -1.0), max(high, 1.0))


def _label_rows(
    axes: Axes, rows: list[tuple[str, int | str | None]], colours: dict[str, str]
) -> None:
    shown = [
        text.name(run) if budget is _HEADING else "∞" if budget is None else str(budget)
        for run, budget in rows
    ]
    axes.set_yticks(range(len(rows)), shown)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for label, (run, budget) in zip(axes.get_yticklabels(), rows, strict=True):
        if budget is _HEADING:
            label.set(color=colours[run], fontweight="bold")


def _entries(table: pa.Table) -> list[Line2D]:
    kinds = [kind for kind in _MARKERS if kind in table["kind"].to_pylist()]
    looks: dict[str, Any] = {"color": GUIDE_COLOUR, "linewidth": 1.2}
    return [
        Line2D(
            [],
            [],
            marker=_MARKERS[kind],
            markerfacecolor="white" if kind == _CONTROL else GUIDE_COLOUR,
            label=kind,
            **looks,
        )
        for kind in kinds
    ]
