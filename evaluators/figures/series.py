"""Tidy tables split into series: one per run and direction, each with its colour and line style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Floats
from engine.core import ALL_DIRECTIONS
from evaluators.figures import text
from evaluators.figures.style import (
    HATCHES,
    LINE_STYLES,
    MARKERS,
    LineStyle,
    bar_looks,
    colours,
)


@dataclass(frozen=True, slots=True)
class Series:
    """The rows of one run and direction, in the order of the table."""

    run: str
    direction: str
    colour: str
    rows: pa.Table

    @property
    def line(self) -> LineStyle:
        """The line style of its direction."""
        return LINE_STYLES.get(self.direction, "-")

    @property
    def marker(self) -> str:
        """The marker of its direction."""
        return MARKERS.get(self.direction, "o")

    @property
    def looks(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib for its line."""
        return {"color": self.colour, "linestyle": self.line}

    @property
    def bar_looks(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib for its bars."""
        return bar_looks(self.colour, HATCHES.get(self.direction, ""))

    @property
    def label(self) -> str:
        """Run and direction on one line, for a panel that shows only this."""
        return " · ".join(part for part in (text.name(self.run), text.name(self.direction)) if part)

    @property
    def stacked_label(self) -> str:
        """Run and direction on two lines, for a narrow panel."""
        return "\n".join(
            part for part in (text.name(self.run, 20), text.name(self.direction)) if part
        )

    def where(self, **values: object) -> Series:
        """The series with only those rows that have these values."""
        return Series(self.run, self.direction, self.colour, where(self.rows, **values))

    def floats(self, column: str) -> Floats:
        """The values of a column; NaN for null and for infinity."""
        return floats(self.rows, column)


def split(table: pa.Table, runs: Sequence[str] = ()) -> list[Series]:
    """Split a table into one series per run and direction.

    Args:
        table: A tidy table; without a column `run` it is of one run without a name.
        runs: The order of the runs; others follow in the order of the table.

    Returns:
        The series in the order of runs, and of a run forward before reverse.
    """
    table = _with_run(table)
    present = dict.fromkeys(
        zip(table["run"].to_pylist(), table["direction"].to_pylist(), strict=True)
    )
    colour = colours([*runs, *(run for run, _ in present)])
    order = list(colour)
    pairs = sorted(present, key=lambda pair: (order.index(pair[0]), _place(pair[1]), pair[1]))
    return [
        Series(run, direction, colour[run], where(table, run=run, direction=direction))
        for run, direction in pairs
    ]


def names(all_series: Sequence[Series]) -> list[str]:
    """The names of the runs, each once."""
    return list(dict.fromkeys(series.run for series in all_series))


def directions(all_series: Sequence[Series]) -> list[str]:
    """The directions, each once, forward first."""
    return sorted(
        {series.direction for series in all_series},
        key=lambda direction: (_place(direction), direction),
    )


def by_direction(all_series: Sequence[Series]) -> list[tuple[str, list[Series]]]:
    """The series of each direction, for a panel per direction."""
    return [
        (direction, [series for series in all_series if series.direction == direction])
        for direction in directions(all_series)
    ]


def where(table: pa.Table, **values: object) -> pa.Table:
    """The rows of a table that have all these values."""
    for column, value in values.items():
        table = table.filter(pc.equal(table[column], value))
    return table


def floats(table: pa.Table, column: str) -> Floats:
    """The values of a column; NaN for null and for infinity."""
    values = np.array(
        [np.nan if value is None else value for value in table[column].to_pylist()],
        dtype=np.float64,
    )
    values[~np.isfinite(values)] = np.nan
    return values


def finite_rows(table: pa.Table, *columns: str) -> pa.Table:
    """The rows in which all these columns are finite numbers."""
    if not table.num_rows:
        return table
    return table.filter(
        pa.array(np.all([np.isfinite(floats(table, column)) for column in columns], axis=0))
    )


def _with_run(table: pa.Table) -> pa.Table:
    if "run" in table.column_names:
        return table
    return table.add_column(0, "run", pa.array([""] * table.num_rows, pa.string()))


def _place(direction: str) -> int:
    return ALL_DIRECTIONS.index(direction) if direction in ALL_DIRECTIONS else len(ALL_DIRECTIONS)
