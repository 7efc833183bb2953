"""A forest plot of paired differences of accuracy: one row per arm, two comparisons each."""

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
from evaluators.figures.series import Series, by_direction, finite_rows, names, split
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
_LOWEST = "against the direction's lowest budget"
_CONTROL = "against the random control at the same budget"
_MARKERS = {_LOWEST: "o", _CONTROL: "D"}
_OFFSETS = {_LOWEST: -0.16, _CONTROL: 0.16}
_HEADING = "heading"

Row = dict[str, Any]


@with_style
def forest(differences: pa.Table, accuracy: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Differences of accuracy on the same samples, with 95 % intervals, one row per arm.

    One panel per direction. An arm is compared with its direction's lowest budget, and with the arm
    of the random control of the same direction and budget. Of many arms some of those between the
    lowest and the highest budget are left out.
    """
    controls = control_runs(accuracy)
    table = _select_comparisons(finite_rows(differences, "difference"), controls)
    all_series = split(table, [*runs, *names(split(accuracy))])
    if not all_series:
        return None
    rows = _rows(all_series)
    groups = by_direction(all_series)
    figure, grid = panels(1, len(groups), max(1.3, 0.25 + _ROW * len(rows)), share_x=False)
    for axes, (direction, members) in zip(grid[0], groups, strict=True):
        for series in members:
            _draw(axes, series, rows, CONTROL_COLOUR if series.run in controls else series.colour)
        _scale(axes)
        if len(groups) > 1:
            label_panel(axes, direction)
    _label_rows(
        grid[0, 0],
        rows,
        {
            series.run: CONTROL_COLOUR if series.run in controls else series.colour
            for series in all_series
        },
    )
    label_axes(figure, "difference of accuracy (percentage points)", "budget (interventions)")
    legend.add(figure, _entries(table))
    return figure


def _select_comparisons(differences: pa.Table, controls: set[str]) -> pa.Table:
    """The rows that are drawn, with a column `kind`.

    The difference of a control to a run becomes that of the run to its control.
    """
    rows = (
        differences.to_pylist() if "run" in differences.column_names else _of_one_run(differences)
    )
    lowest = _lowest(rows)
    drawn: list[Row] = []
    for row in rows:
        run, other = row["run"], row["against_run"] or row["run"]
        if run == other and _arm_of(row, "against_") == lowest.get((run, row["direction"])):
            drawn.append({**row, "kind": _LOWEST})
        elif _is_against_control(row, run in controls, other in controls):
            drawn.append({**(_swap_sides(row) if run in controls else row), "kind": _CONTROL})
    return pa.Table.from_pylist(drawn) if drawn else differences.slice(0, 0)


def _is_against_control(row: Row, is_control: bool, is_other_control: bool) -> bool:
    """Whether a row compares an arm with the same arm of a control.

    Not at budget 0: without interventions both are the same.
    """
    return (
        is_control != is_other_control
        and _arm_of(row) == _arm_of(row, "against_")
        and row["budget"] != 0
    )


def _of_one_run(differences: pa.Table) -> list[Row]:
    return [{**row, "run": "", "against_run": ""} for row in differences.to_pylist()]


def _lowest(rows: list[Row]) -> dict[tuple[str, str], tuple[str, int | None]]:
    """The arm with the lowest budget of each run and direction, with which the others compare."""
    lowest: dict[tuple[str, str], tuple[str, int | None]] = {}
    for row in sorted(rows, key=lambda row: budget_order(row["against_budget"])):
        if row["direction"] == row["against_direction"] and row["against_run"] in (
            None,
            row["run"],
        ):
            lowest.setdefault((row["run"], row["direction"]), _arm_of(row, "against_"))
    return lowest


def _arm_of(row: Row, prefix: str = "") -> tuple[str, int | None]:
    return row[f"{prefix}direction"], row[f"{prefix}budget"]


def _swap_sides(row: Row) -> Row:
    """The same comparison from the other side."""
    low, high = (None if row[bound] is None else -row[bound] for bound in ("high", "low"))
    sides = {"run": row["against_run"], "against_run": row["run"]}
    return {**row, **sides, "difference": -row["difference"], "low": low, "high": high}


def _rows(all_series: Sequence[Series]) -> list[tuple[str, int | str | None]]:
    """The rows from the top: of each run its budgets in rising order.

    With several runs, a heading stands above the budgets of each.
    """
    runs = names(all_series)
    limit = max(2, MAX_ROWS // len(runs) - 1)
    rows: list[tuple[str, int | str | None]] = []
    for run in runs:
        budgets = {
            budget
            for series in all_series
            if series.run == run
            for budget in series.rows["budget"].to_pylist()
        }
        rows += [(run, _HEADING)] if len(runs) > 1 else []
        rows += [(run, budget) for budget in _thin_out(sorted(budgets, key=budget_order), limit)]
    return rows


def _thin_out(budgets: list[int | None], limit: int) -> list[int | None]:
    """At most `limit` of the budgets, the first and the last among them."""
    places = np.linspace(0, len(budgets) - 1, min(limit, len(budgets))).round().astype(int)
    return [budgets[place] for place in places.tolist()]


def _draw(
    axes: Axes, series: Series, rows: list[tuple[str, int | str | None]], colour: str
) -> None:
    """The comparisons of the arms of a series, each kind at its own height within a row."""
    for row in series.rows.to_pylist():
        if (series.run, row["budget"]) not in rows:
            continue
        y = rows.index((series.run, row["budget"])) + _OFFSETS[row["kind"]]
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
    """A scale that always shows zero."""
    axes.axvline(0, color=GUIDE_COLOUR, linewidth=0.9)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    low, high = axes.get_xlim()
    ticks.linear_axis(axes, "x", min(low, -1.0), max(high, 1.0))


def _label_rows(
    axes: Axes, rows: list[tuple[str, int | str | None]], colours: dict[str, str]
) -> None:
    axes.set_yticks(range(len(rows)), [_row_label(run, budget) for run, budget in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for label, (run, budget) in zip(axes.get_yticklabels(), rows, strict=True):
        if budget is _HEADING:
            label.set(color=colours[run], fontweight="bold")


def _row_label(run: str, budget: int | str | None) -> str:
    if budget is _HEADING:
        return text.name(run)
    return "∞" if budget is None else str(budget)


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
