"""All measurements of all runs, as one table each with a first column `run`; what cannot be made
becomes a note.

A run is measured on its own first. A part that turns out to be damaged only when it is read sends
it back: it is opened once more without its damaged parts and measured anew, so that all its numbers
are of the same responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from engine.errors import StoreError
from engine.store.schema import VOCABULARY
from engine.store.tables import decodes
from engine.system.terminal import one_line
from evaluators.database.run_tables import NotMeasurable, RunTables
from evaluators.report.comparison import checkpoints, compared_with, controls
from evaluators.report.completeness import completeness_notes
from evaluators.report.grades import read_graded
from evaluators.report.runs import Run, open_as
from evaluators.report.section import Section
from evaluators.scores.by_arm import Graded, accuracy_by_budget, accuracy_differences

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
    """All tables of one run, and the run as it was read for them, maybe without its damaged
    parts.
    """
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


def measure_accuracy(
    runs: Sequence[Run], graded: Sequence[Graded | None], section: str, measured: Measured
) -> None:
    """Accuracy of each run and differences within and between runs: tables `accuracy`,
    `accuracy_differences`.
    """
    control_of, notes = controls(runs)
    of = {run.name: found for run, found in zip(runs, graded, strict=True) if found}
    there = [run for run in runs if run.name in of]
    accuracy, differences = [], []
    for run in there:
        others, unlike = compared_with(run, there, control_of)
        notes += unlike
        graded_run = of[run.name]
        accuracy.append(
            with_run(
                run.name, accuracy_by_budget(graded_run, run.name in control_of, run.is_scored)
            )
        )
        if not run.is_scored:  # else they are those of the run that was scored
            against = [of[other.name] for other in others]
            differences.append(with_run(run.name, accuracy_differences(graded_run, against)))
    measured.tables |= concatenated({"accuracy": accuracy, "accuracy_differences": differences})
    measured.note(section, notes)


def measure_together(runs: Sequence[Run], section: Section, measured: Measured) -> None:
    """The section's tables of the runs that measured the same responses under several checkpoints,
    if there are two.
    """
    if not section.compares:
        return
    found, notes = checkpoints(runs)
    measured.note(section.name, notes)
    opened = [run.tables for run in found if run.tables]
    for comparison in section.compares if len(opened) > 1 else ():
        try:
            measured.tables |= concatenated({comparison.table: [comparison.measure(opened)]})
        except (NotMeasurable, StoreError) as error:
            measured.note(section.name, [str(error)])


def concatenated(parts: dict[str, list[pa.Table]]) -> dict[str, pa.Table]:
    """The parts of each table one under another; tables without a row are left out."""
    there = {name: [part for part in tables if part.num_rows] for name, tables in parts.items()}
    return {
        name: pa.concat_tables(tables, promote_options="permissive")
        for name, tables in there.items()
        if tables
    }


def with_run(name: str, table: pa.Table) -> pa.Table:
    """`table` with a first column `run`."""
    return table.add_column(0, "run", pa.array([name] * table.num_rows, pa.string()))


def redact(name: str, of_run: OfRun) -> None:
    """Leave out the tables of tokens: what responses to a gated set say is not to be published, as
    ids neither.
    """
    tables = [table for table, rows in of_run.tables.items() if "token" in rows.column_names]
    for table in tables:
        del of_run.tables[table]
    if tables:
        of_run.note(
            "identity", [f"{name}: a gated set, whose tokens are not shown: --show-text shows them"]
        )


def _measure_run(
    run: Run, sections: Sequence[Section], on_stage: OnStage, is_last: bool = False
) -> OfRun:
    """Raises StoreError where a part turns out to be damaged, unless `is_last`."""
    found = OfRun()
    on_stage(f"{run.name}: accuracy")
    found.graded, notes = read_graded(run)
    found.note("accuracy", notes)
    if run.tables is None:
        return found
    found.note("accuracy", completeness_notes(run))
    if not _has_measured(run.tables):
        found.note(
            sections[0].name,
            [f"{run.name}: no position was measured by both policies, so accuracy is all"],
        )
        return found
    found.note("identity", _vocabulary_notes(run))
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
        except (NotMeasurable, StoreError) as error:
            if isinstance(error, StoreError) and not is_last:
                raise
            found.note(section.name, [f"{tables.name}: {error}"])
            continue
        if table.num_rows:
            found.tables[measurement.table] = with_run(tables.name, table)
        else:
            empty.setdefault(measurement.empty, []).append(measurement.table)
    lines = [
        f"{tables.name}: {reason}, so it has no {', '.join(missing)}"
        for reason, missing in empty.items()
    ]
    found.note(section.name, lines)


def _vocabulary_notes(run: Run) -> list[str]:
    file = run.path / "vocabulary.parquet"
    if decodes(file, VOCABULARY):
        return []
    what = (
        "its vocabulary.parquet cannot be read" if file.exists() else "holds no vocabulary.parquet"
    )
    return [f"{run.name}: {what}, so its tokens are shown by their ids"]


def _has_measured(tables: RunTables) -> bool:
    return bool(tables.query(f"SELECT 1 FROM {tables.measured} LIMIT 1").num_rows)
