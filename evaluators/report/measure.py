"""All measurements of all runs, as one table each with a first column `run`; what cannot be made becomes a note.

A run is measured on its own first. A part that turns out to be damaged only when it is read sends it back: it is opened
once more without its damaged parts and measured anew, so that all its numbers are of the same responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import StoreError
from evaluators.report.accuracy import Graded, accuracy_by_budget, accuracy_differences
from evaluators.report.comparison import checkpoints, compared_with, controls
from evaluators.report.grades import read_graded
from evaluators.report.runs import Run, one_line, open_as
from evaluators.report.section import Section
from evaluators.shifts.tables import MissingColumns, RunTables

OnStage = Callable[[str], None]
Notes = dict[str, list[str]]  # what is missing, by name of the section


@dataclass(slots=True)
class Measured:
    """What was measured. tables: by name of their CSV file; notes: what is missing."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)

    def note(self, section: str, lines: Sequence[str]) -> None:
        """Say that something is missing, once."""
        known = self.notes.setdefault(section, [])
        known += [line for line in dict.fromkeys(map(one_line, lines)) if line not in known]


@dataclass(slots=True)
class OfRun(Measured):
    """What was measured of one run, and its grades."""

    graded: Graded | None = None


def measure_run(
    database: duckdb.DuckDBPyConnection, run: Run, sections: Sequence[Section], on_stage: OnStage
) -> tuple[Run, OfRun]:
    """All tables of one run, and the run as it was read for them, maybe without its damaged parts."""
    try:
        return run, _measure_run(run, sections, on_stage)
    except StoreError:
        on_stage(f"{run.name}: looking for damaged parts")
    whole = open_as(database, run.path, run.name, decode=True)
    try:
        return whole, _measure_run(whole, sections, on_stage, is_last=True)
    except StoreError as error:
        nothing = OfRun()
        nothing.note("accuracy", [f"{run.name}: nothing could be measured: {error}"])
        return whole, nothing


def measure_accuracy(runs: Sequence[Run], graded: Sequence[Graded | None], section: str, measured: Measured) -> None:
    """Accuracy of each run and differences within and between runs: tables `accuracy`, `accuracy_differences`."""
    control_of, notes = controls(runs)
    of = {run.name: found for run, found in zip(runs, graded, strict=True) if found}
    there = [run for run in runs if run.name in of]
    accuracy, differences = [], []
    for run in there:
        others, unlike = compared_with(run, there, control_of)
        notes += unlike
        accuracy.append(with_run(run.name, accuracy_by_budget(of[run.name], run.name in control_of)))
        against = [of[other.name] for other in others]
        differences.append(with_run(run.name, accuracy_differences(of[run.name], against)))
    measured.tables |= concatenated({"accuracy": accuracy, "accuracy_differences": differences})
    measured.note(section, notes)


def measure_together(runs: Sequence[Run], section: Section, measured: Measured) -> None:
    """The section's tables of the runs that measured the same responses under several checkpoints, if there are two."""
    if not section.compares:
        return
    opened = [run.tables for run in checkpoints(runs) if run.tables]
    for comparison in section.compares if len(opened) > 1 else ():
        try:
            measured.tables |= concatenated({comparison.table: [comparison.measure(opened)]})
        except (MissingColumns, StoreError) as error:
            measured.note(section.name, [str(error)])


def concatenated(parts: dict[str, list[pa.Table]]) -> dict[str, pa.Table]:
    """The parts of each table one under another; tables without a row are left out."""
    there = {name: [part for part in tables if part.num_rows] for name, tables in parts.items()}
    return {name: pa.concat_tables(tables, promote_options="permissive") for name, tables in there.items() if tables}


def with_run(name: str, table: pa.Table) -> pa.Table:
    """`table` with a first column `run`."""
    return table.add_column(0, "run", pa.array([name] * table.num_rows, pa.string()))


def redacted(table: pa.Table) -> pa.Table:
    """`table` with `#<id>` for the text of each token: pieces of text of a gated set are not to be published."""
    if "text" not in table.column_names:
        return table
    ids = pc.binary_join_element_wise("#", table["token"].cast(pa.string()), "")
    return table.set_column(table.schema.get_field_index("text"), "text", ids)


def _measure_run(run: Run, sections: Sequence[Section], on_stage: OnStage, is_last: bool = False) -> OfRun:
    """Raises StoreError where a part turns out to be damaged, unless `is_last`."""
    found = OfRun()
    on_stage(f"{run.name}: accuracy")
    found.graded, notes = read_graded(run)
    found.note("accuracy", notes)
    if run.tables is None:
        return found
    if not _has_measured(run.tables):
        found.note(sections[0].name, [f"{run.name}: no position was measured by both policies, so accuracy is all"])
        return found
    if not (run.path / "vocabulary.parquet").is_file():
        found.note("identity", [f"{run.name}: holds no vocabulary.parquet, so its tokens are shown by their ids"])
    for section in sections:
        if section.measurements:
            on_stage(f"{run.name}: {section.name}")
            _measure_section(run.tables, section, found, is_last)
    return found


def _measure_section(tables: RunTables, section: Section, found: OfRun, is_last: bool) -> None:
    empty: dict[str, list[str]] = {}
    for measurement in section.measurements:
        try:
            table = measurement.measure(tables)
        except (MissingColumns, StoreError) as error:
            if isinstance(error, StoreError) and not is_last:
                raise
            found.note(section.name, [f"{tables.name}: {error}"])
            continue
        if table.num_rows:
            found.tables[measurement.table] = with_run(tables.name, table)
        else:
            empty.setdefault(measurement.empty, []).append(measurement.table)
    lines = [f"{tables.name}: {reason}, so it has no {', '.join(missing)}" for reason, missing in empty.items()]
    found.note(section.name, lines)


def _has_measured(tables: RunTables) -> bool:
    return bool(tables.query(f"SELECT 1 FROM {tables.measured} LIMIT 1").num_rows)
