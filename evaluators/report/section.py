"""The nouns of a report: a section, the measurements that it shows, and the drawings that are made
of their tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from evaluators.database.run_tables import RunTables
from evaluators.report import counts

Tables = Mapping[str, pa.Table]  # by name of the CSV file; the first column is `run`


class Measurement(NamedTuple):
    """A table of one run.

    table:   name of its CSV file
    measure: what makes it
    empty:   what a table without rows says of the run
    """

    table: str
    measure: Callable[[RunTables], pa.Table]
    empty: str = "nothing was measured"


class Drawing(NamedTuple):
    """A figure.

    name:    of its files
    draw:    makes it of `tables` and the names of the runs; None where there is nothing to draw
    caption: what it shows, with units; `{n}` is what `num` found
    num:     how many of what were measured, for the caption
    """

    name: str
    draw: Callable[..., Any]
    tables: tuple[str, ...]
    caption: str
    num: Callable[[Tables], str] = counts.positions


class Comparison(NamedTuple):
    """A table of several runs that measured the same responses; it has no column `run`."""

    table: str
    measure: Callable[[Sequence[RunTables]], pa.Table]


class Section(NamedTuple):
    """What the page says of one measurement.

    definition: 1-3 plain sentences; source: where it is defined; compares: tables of several runs
    together; absent: what is said where nothing is there and no run gives a reason
    """

    name: str
    title: str
    definition: str
    source: str
    measurements: Sequence[Measurement]
    drawings: Sequence[Drawing]
    compares: Sequence[Comparison] = ()
    absent: str = "Nothing was measured."
