"""The parts of a report: a section, its measurements, and the drawings of their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from evaluators.database.run_tables import RunTables
from evaluators.report import counts

Tables = Mapping[str, pa.Table]  # by name of the CSV file; the first column is `run`


class Measurement(NamedTuple):
    """A table that is made of each run."""

    table: str
    """The name of the table and of its CSV file."""
    measure: Callable[[RunTables], pa.Table]
    empty: str = "nothing was measured"
    """The reason that a note gives where the table has no rows."""


class Drawing(NamedTuple):
    """A figure that is drawn of all runs."""

    name: str
    """The name of its files."""
    draw: Callable[..., Any]
    """From `tables` and the names of the runs to the figure; None where there is none to draw."""
    tables: tuple[str, ...]
    caption: str
    """What the figure shows, with units; `{n}` stands for the text of `num`."""
    num: Callable[[Tables], str] = counts.positions
    """The number of positions, responses or pairs in the figure, as text."""


class Comparison(NamedTuple):
    """A table of several runs that measured the same responses; it has no column `run`."""

    table: str
    measure: Callable[[Sequence[RunTables]], pa.Table]


class Section(NamedTuple):
    """A section of the page."""

    name: str
    title: str
    definition: str
    """What is measured and how, in plain sentences."""
    source: str
    """Where it is defined."""
    measurements: Sequence[Measurement]
    drawings: Sequence[Drawing]
    compares: Sequence[Comparison] = ()
    """The tables of several runs together."""
    absent: str = "Nothing was measured."
    """The text of an empty section for which no run gives a reason."""
